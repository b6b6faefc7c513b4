from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from vtk_cli.console import Console
from vtk_cli.data.points import Classes, open_points
from vtk_cli.errors import UserError

Write = Callable[..., Path]
SQUARE = [[10, 10, 20, 10, 20, 16, 10, 16]]
"""Covers the pixels x 10..19, y 10..15."""


def opened(path: Path, photos: Path, **how: object):
    return open_points(path, images=photos, console=Console(quiet=True), **how)


def test_of_everything_an_annotation_has_the_point_counts_first(coco: Write, photos: Path) -> None:
    given = [
        ("point", {"point": [1.5, 2.5]}, (1.5, 2.5)),
        ("point_coords", {"point_coords": [[5, 5], [6, 7]], "point_labels": [0, 1]}, (6, 7)),
        ("keypoints", {"keypoints": [1, 1, 0, 8, 9, 2]}, (8, 9)),
        ("segmentation", {"segmentation": SQUARE}, (14.5, 12.5)),
        ("bbox", {"bbox": [20, 4, 10, 6]}, (24.5, 6.5)),
    ]
    entries = [{key: value for _, part, _ in given[first:] for key, value in part.items()} for first in range(5)]
    points = opened(coco([{**entry, "category_id": 3} for entry in entries]), photos, mode="centroid")
    assert points.images[0].sources == tuple(source for source, _, _ in given)
    assert points.images[0].points.tolist() == [list(at) for _, _, at in given]
    assert points.sources == dict.fromkeys((source for source, _, _ in given), 1)


def test_labels_are_contiguous_in_the_order_of_category_ids(coco: Write, photos: Path) -> None:
    entries = [{"point": [1, 1], "category_id": 7}, {"point": [5, 1], "category_id": 3, "image_id": 12}]
    points = opened(coco(entries), photos)
    assert points.classes == Classes(("cat", "dog"), (3, 7))
    assert [image.labels.tolist() for image in points.images] == [[1], [], [0]]
    assert points.images[0].annotation_ids.tolist() == [1]
    assert points.without_click == 1
    assert points.class_counts().tolist() == [1, 1]
    assert "1 images without a click" in points.summary()


def test_polygons_and_both_kinds_of_run_lengths_give_the_same_click(coco: Write, photos: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[10:16, 10:20] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    kinds = [
        SQUARE,
        {"size": [30, 40], "counts": counts},
        {"size": [30, 40], "counts": compressed["counts"].decode()},
    ]
    images = (10, 11, 12)
    entries = [{"segmentation": kind, "image_id": image} for kind, image in zip(kinds, images, strict=True)]
    points = opened(coco(entries), photos, mode="centroid")
    assert [image.points.tolist() for image in points.images] == [[[14.5, 12.5]]] * 3


def test_crowds_have_no_click(coco: Write, photos: Path) -> None:
    assert opened(coco([{"point": [1, 1]}, {"bbox": [1, 1, 9, 9], "iscrowd": 1}]), photos).clicks == 1


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (
            {"point": [42, 3]},
            r"1 x point is outside the image \(first .*image 10 annotation 2 \(point \[42, 3\], image 40x30",
        ),
        ({"point": [3, -1.5]}, "point is outside the image"),
        ({"point": [3, "x"]}, "point is not two numbers"),
        ({"point": [3, 3], "category_id": 99}, "category is unknown"),
        ({"point": [3, 3], "image_id": 99}, "annotation is of an unknown image"),
        ({}, "annotation has neither point, mask nor box"),
        ({"segmentation": [[1, 1, 2, 2]]}, "polygon is not three or more points"),
        ({"segmentation": {"size": [30, 40], "counts": [1200]}}, "mask is empty"),
        ({"segmentation": {"size": [40, 30], "counts": [0, 1200]}}, "mask does not decode"),
        ({"segmentation": [[1, 1, 1.1, 1, 1.1, 1]]}, "mask is empty"),
        ({"point_coords": [[3, 3]], "point_labels": [0]}, "point_coords has no point on the object"),
        ({"keypoints": [3, 3, 0]}, "keypoints has no point on the object"),
        ({"bbox": [3, 3, 0, 4]}, "box has no area"),
        ({"point": [3, 3], "id": 1}, "annotation id is used twice"),
    ],
)
def test_a_wrong_annotation_is_refused_with_its_count_or_left_out(
    coco: Write, photos: Path, entry: dict[str, object], what: str
) -> None:
    path = coco([{"point": [30, 20]}, entry, {"point": [20, 20]}])
    with pytest.raises(UserError, match=what):
        opened(path, photos)
    points = opened(path, photos, skip_bad=True)
    assert points.clicks == (1 if entry.get("id") == 1 else 2)
    assert dict(points.left_out)


def test_clicks_on_images_that_are_missing_are_counted(coco: Write, photos: Path) -> None:
    (photos / "b.png").unlink()
    path = coco([{"point": [1, 1]}, {"point": [1, 1], "image_id": 11}, {"point": [9, 1], "image_id": 11}])
    with pytest.raises(UserError, match=r"2 x click is on an image that cannot be used .* 1 x image is missing"):
        opened(path, photos)
    points = opened(path, photos, skip_bad=True)
    assert [image.id for image in points.images] == [10, 12]


def test_an_image_that_its_exif_data_turn_is_held_to_its_upright_size(coco: Write, photos: Path) -> None:
    turned = Image.new("RGB", (30, 40))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(photos / "a.png", exif=exif)
    assert opened(coco([{"point": [38, 1]}]), photos).images[0].read().size == (40, 30)
    Image.new("RGB", (30, 40)).save(photos / "a.png")
    with pytest.raises(UserError, match=r"a\.png is 30x40, listed as 40x30"):
        opened(coco([{"point": [38, 1]}]), photos)


def test_two_clicks_of_a_class_within_a_pixel_are_one_with_a_warning(
    coco: Write, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = coco(
        [{"point": [5, 5]}, {"point": [5.6, 5.8]}, {"point": [5, 5], "category_id": 7}, {"point": [6.1, 5]}],
    )
    points = opened(path, photos)
    assert points.images[0].points.tolist() == [[5, 5], [5, 5], [6.1, 5]]
    assert (
        "1 clicks within 1 pixel of another of the same class, of which one is kept (first image 10 annotation 2)"
        in (" ".join(capsys.readouterr().err.split()))
    )


def test_a_click_up_to_a_pixel_beyond_the_image_is_moved_onto_it(coco: Write, photos: Path) -> None:
    points = opened(coco([{"point": [40, -1]}]), photos)
    assert points.images[0].points.tolist() == [[39, 0]]


def test_other_classes_than_those_of_the_full_labels_are_refused(coco: Write, photos: Path) -> None:
    with pytest.raises(UserError, match="7 dog only here; 7 cow only there"):
        opened(coco([{"point": [1, 1]}]), photos, classes=Classes(("cat", "cow"), (3, 7)))


@pytest.mark.parametrize("name", ["points.txt", "absent.json"])
def test_files_that_hold_no_points_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "points.txt").write_text("1")
    with pytest.raises(UserError, match="COCO JSON"):
        opened(tmp_path / name, tmp_path)
