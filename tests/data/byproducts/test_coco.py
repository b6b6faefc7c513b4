from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vtk_cli.data.byproducts.marks import Byproducts
from vtk_cli.data.byproducts.matching import match_byproducts
from vtk_cli.errors import UserError

from .conftest import Heard, write_list

Read = Callable[..., Byproducts]
CLASSES = ("person", "cat", "hot dog")


def action(kind: Any, icon: Any, to: Any = None) -> dict[str, Any]:
    return {"actionType": kind, "iconType": icon, "pointFrom": None, "pointTo": to, "timeAt": 1}


def at(x: Any, y: Any) -> dict[str, Any]:
    return {"x": x, "y": y}


def points_of(byproducts: Byproducts, heard: Heard, names: tuple[str, ...], **options: Any) -> list[Any]:
    targets = match_byproducts(byproducts, names, CLASSES, multi_label=True, console=heard.console, **options)
    assert targets.points.shape == (len(names), 3, 2)
    assert targets.points[~targets.present].tolist() == [[0.5, 0.5]] * int((~targets.present).sum())
    return [
        [point if there else None for point, there in zip(points, present, strict=True)]
        for points, present in zip(targets.points.tolist(), targets.present.tolist(), strict=True)
    ]


ITEMS = [
    {
        "image_id": 9,
        "originalImageWidth": 0,
        "originalImageHeight": 0,
        "worker_id": "W",
        "actionHistories": [
            action("add", "cat", at(0.125, 0.25)),
            action("move", "cat", at(0.5, 0.75)),
            action("add", "person", at(0.25, 0.25)),
            action("remove", "person"),
            action("add", "hot dog", at(0.0, 0.0)),
            action("remove", "hot dog"),
            action("add", "hot dog", at(1.0, 0.5)),
        ],
        "mouseTracking": [{"x": 0.5, "y": 0.5, "timeAt": 3}],
    },
    {"image_id": 123456, "actionHistories": [action("add", "person", at(0.5, 0.125))]},
]
NAMES = ("COCO_train2014_000000123456.jpg", "COCO_train2014_000000000009.jpg", "COCO_train2014_000000000010.jpg")


@pytest.mark.parametrize("point", ["final", "last"])
def test_the_icons_are_where_they_were_left(tmp_path: Path, read: Read, heard: Heard, point: str) -> None:
    found = points_of(read(write_list(tmp_path / "ab.json", ITEMS), point=point), heard, NAMES)
    assert found == [[[0.5, 0.125], None, None], [None, [0.5, 0.75], [1.0, 0.5]], [None, None, None]]


def test_the_published_loader_takes_where_an_icon_was_last_added(tmp_path: Path, read: Read, heard: Heard) -> None:
    found = points_of(read(write_list(tmp_path / "ab.json", ITEMS), point="add"), heard, NAMES)
    assert found[1] == [[0.25, 0.25], [0.125, 0.25], [1.0, 0.5]]


def test_given_ids_come_before_numbers_in_file_names(tmp_path: Path, read: Read, heard: Heard) -> None:
    byproducts = read(write_list(tmp_path / "ab.json", ITEMS))
    names = ("000000000009.jpg", "something.jpg")
    assert points_of(byproducts, heard, names)[0][1] == [0.5, 0.75]
    assert points_of(byproducts, heard, names, image_ids=[1, 9])[1][1] == [0.5, 0.75]


def test_of_two_items_of_an_image_the_last_counts(tmp_path: Path, read: Read, heard: Heard) -> None:
    later = {"image_id": 9, "actionHistories": [action("add", "cat", at(0.25, 0.25))]}
    byproducts = read(write_list(tmp_path / "ab.json", [*ITEMS, later]))
    assert points_of(byproducts, heard, NAMES)[1] == [None, [0.25, 0.25], None]
    assert "1 earlier items of an image that has several skipped" in heard.text


def test_unknown_icons_are_named_and_counted(tmp_path: Path, read: Read, heard: Heard) -> None:
    odd = {"image_id": 10, "actionHistories": [action("add", "unicorn", at(0.5, 0.5)), action("add", "yeti", at(0, 0))]}
    points_of(read(write_list(tmp_path / "ab.json", [*ITEMS, odd])), heard, NAMES)
    assert "2 marks of 2 classes that the data does not have (unicorn, yeti) are skipped" in heard.text


def test_hostile_items_are_survived_and_counted(tmp_path: Path, read: Read, heard: Heard) -> None:
    text = (tmp_path / "ab.json", ITEMS)
    write_list(*text)
    odd = (
        '[{"image_id": 10, "actionHistories": [{"actionType": ["add"], "iconType": {"a": 1}}, 3, null,'
        ' {"actionType": "add", "iconType": "cat", "pointTo": {"x": NaN, "y": 1e999}},'
        ' {"actionType": "add", "iconType": "cat", "pointTo": [1, 2]}], "mouseTracking": {"x": 1}},'
        ' 7, {"image_id": true}, {"image_id": [1]}, {"image_id": 11, "actionHistories": "add"},'
    )
    content = odd + (tmp_path / "ab.json").read_text(encoding="utf-8").removeprefix("[")
    (tmp_path / "ab.json").write_text(content, encoding="utf-8")
    byproducts = read(tmp_path / "ab.json")
    assert byproducts.skipped == {
        "actions that are no add, move or remove of an icon": 3,
        "actions without a place": 2,
        "items without an image_id": 3,
    }
    assert points_of(byproducts, heard, NAMES)[0] == [[0.5, 0.125], None, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"image_id": 1, "actionHistories": []},\n{"image_id": }]', r"ab\.json:2: is not JSON"),
        ('[{"image_id": 1, "actionHistories": []}\n{}]', r"ab\.json:2: is not JSON: expecting ','"),
        ('[{"image_id": 1, "actionHistories": []},]', r"ab\.json:1: is not JSON"),
        ('[{"image_id": 1, "actionHistories": []}', r"ab\.json:1: is not JSON"),
        ('[{"image_id": 1, "actionHistories": []}]\n\n x', r"ab\.json:1: is not JSON: extra data"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"image_id": ' + "9" * 5000 + "}]", "is not JSON"),
        ("[]", "no byproduct format that is known"),
        ('[{"something": 1}]', r"known \(its first entry has something\)"),
        ("", "is not JSON"),
    ],
)
def test_a_wrong_json_is_named_with_its_line(tmp_path: Path, read: Read, content: str, message: str) -> None:
    (tmp_path / "ab.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read(tmp_path / "ab.json")


@pytest.mark.parametrize("point", ["first", "mean", "trace-end"])
def test_a_point_that_does_not_go_with_the_format_is_refused(tmp_path: Path, read: Read, point: str) -> None:
    with pytest.raises(UserError, match=r"--ab-point.*choose last, final, add"):
        read(write_list(tmp_path / "ab.json", ITEMS), point=point)


COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 100, "height": 200},
        {"id": 2, "file_name": "b.jpg", "width": 100, "height": 100},
        {"file_name": "c.jpg"},
        "d.jpg",
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 5, "bbox": [10, 20, 20, 40]},
        {"id": 2, "image_id": 1, "category_id": 5, "bbox": [50, 100, 50, 100]},
        {"id": 3, "image_id": 1, "category_id": 7, "bbox": [0, 0, 100, 200], "iscrowd": 1},
        {"id": 4, "image_id": 2, "category_id": 7, "bbox": [-50, 0, 100, 50]},
        {"id": 5, "image_id": 2, "category_id": 7, "bbox": [0, 0, "x"]},
        {"id": 6, "image_id": 9, "category_id": 7, "bbox": [0, 0, 1, 1]},
        {"id": 7, "image_id": 2, "category_id": 7, "bbox": [200, 0, 1, 1]},
        {"category_id": 7},
    ],
    "categories": [{"id": 5, "name": "cat"}, {"id": 7, "name": "person"}],
}


def test_the_centre_of_a_classs_largest_box_is_its_point(tmp_path: Path, read: Read, heard: Heard) -> None:
    byproducts = read(write_list(tmp_path / "instances.json", COCO), source="boxes")
    names = ("train/a.jpg", "train/b.jpg")
    assert points_of(byproducts, heard, names) == [[None, [0.75, 0.75], None], [[0.25, 0.25], None, None]]
    assert byproducts.skipped == {
        "boxes of crowds": 1,
        "annotations without a box": 1,
        "boxes of unknown images or categories": 2,
        "boxes without an area inside the image": 1,
    }
    targets = match_byproducts(byproducts, names, CLASSES, multi_label=True, console=heard.console)
    assert targets.boxes is not None
    assert targets.boxes[0, 1].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert targets.boxes[1, 0].tolist() == [0.0, 0.0, 0.5, 0.5]


def test_boxes_are_no_clicks(tmp_path: Path, read: Read) -> None:
    with pytest.raises(UserError, match="use --ab-from boxes"):
        read(write_list(tmp_path / "instances.json", COCO))
