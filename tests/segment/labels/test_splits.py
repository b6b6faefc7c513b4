from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vtk_cli.data.coco_files import CocoFile, read_coco_file
from vtk_cli.errors import UserError
from vtk_cli.segment.labels.splits import (
    FRACTIONS,
    image_order,
    split_file,
    stratified_order,
    strong_images,
    write_split,
)


def coco(path: Path, images: list[Any], annotations: list[Any] | None = None) -> CocoFile:
    return CocoFile(path, path.parent, images, annotations or [], [{"id": 1, "name": "cat"}])


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_images() -> None:
    ids = list(range(500, 700))
    assert image_order(ids, 3) == image_order(ids[::-1], 3)
    assert sorted(image_order(ids, 3)) == ids
    assert image_order(ids, 3) != image_order(ids, 4)


def test_splits_of_a_seed_are_nested_and_hold_the_share_rounded() -> None:
    order = image_order(list(range(1000)), 0)
    parts = [set(strong_images(order, fraction)) for fraction in FRACTIONS]
    assert [len(part) for part in parts] == [10, 20, 50, 100, 200, 300, 400, 500]
    assert all(small < large for small, large in pairwise(parts))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan"), 0.001, 0.999])
def test_a_split_without_strong_or_weak_images_is_refused(fraction: float) -> None:
    with pytest.raises(UserError):
        strong_images(list(range(100)), fraction)


def test_every_entry_goes_to_the_part_of_its_image_as_it_is(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.png", "extra": [number]} for number in range(20)]
    annotations = [{"id": number, "image_id": number % 20, "segmentation": []} for number in range(60)]
    parts = split_file(coco(tmp_path / "x.json", images, annotations), 0.25, 1)
    assert [len(part["images"]) for part in parts] == [5, 15]
    assert [len(part["annotations"]) for part in parts] == [15, 45]
    for part in parts:
        ids = {image["id"] for image in part["images"]}
        assert {entry["image_id"] for entry in part["annotations"]} == ids
        assert all(image in images for image in part["images"])
    assert not {image["id"] for image in parts[0]["images"]} & {image["id"] for image in parts[1]["images"]}


def test_the_files_of_a_split_are_named_for_it_and_read_back(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(40)]
    files = write_split(coco(tmp_path / "instances_train.json", images), 0.05, 0, tmp_path / "out")
    assert files.strong.name == "instances_train_5p_s.json"
    assert files.weak.name == "instances_train_5p_w.json"
    assert (files.strong_images, files.weak_images) == (2, 38)
    assert len(read_coco_file(files.strong).images) == 2
    assert json.loads(files.weak.read_text())["categories"] == [{"id": 1, "name": "cat"}]


def test_a_stratified_split_has_so_many_objects_of_every_class_as_there_are() -> None:
    classes = {number: [0] * 3 for number in range(100)} | {7: [1, 2], 8: [1], 9: [2, 2], 10: [3]}
    order, needed = stratified_order(list(range(100)), classes, 0, 2)
    assert sorted(order) == list(range(100))
    found = [one for identity in order[:needed] for one in classes[identity]]
    assert [found.count(of_class) >= wanted for of_class, wanted in ((0, 2), (1, 2), (2, 2), (3, 1))] == [True] * 4
    assert set(order[:needed]) - {10} <= {7, 8, 9, *range(100)}
    rest = [identity for identity in image_order(list(range(100)), 0) if identity not in order[:needed]]
    assert order[needed:] == rest


def test_stratification_without_a_class_in_need_is_the_plain_order() -> None:
    assert stratified_order(list(range(30)), {}, 5, 4) == (image_order(list(range(30)), 5), 0)


def test_more_objects_of_a_class_than_the_share_can_hold_are_refused(tmp_path: Path) -> None:
    images = [{"id": number} for number in range(20)]
    annotations = [{"id": number, "image_id": number, "category_id": number} for number in range(20)]
    with pytest.raises(UserError, match="1 objects of every class take 20 images, but 10 % are 2"):
        split_file(coco(tmp_path / "x.json", images, annotations), 0.1, 0, least=1)


@pytest.mark.parametrize(("images", "what"), [([{"id": "a"}], "no integer"), ([{"id": 1}, {"id": 1}], "used twice")])
def test_images_that_cannot_be_told_apart_are_refused(tmp_path: Path, images: list[Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        split_file(coco(tmp_path / "x.json", images), 0.5, 0)
