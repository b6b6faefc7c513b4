from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.errors import UserError
from vtk_cli.segment.pseudo.labels import (
    PseudoLabel,
    UnresolvedClick,
    mask_iou,
    read_pseudo_labels,
    read_unresolved,
    write_pseudo_labels,
    write_unresolved,
)

from ..scenes_with_masks import CLASSES, box_mask, clicked, point_set, pseudo


def test_what_is_written_opens_in_pycocotools_and_is_read_back(tmp_path: Path) -> None:
    masks = [box_mask(30, 40, 3, 4, 10, 12), box_mask(30, 40, 39, 29, 40, 30)]
    labels = [
        pseudo(5, 101, masks[0], 0, flags=("point_outside",)),
        pseudo(6, 102, masks[1], 1, iou_rough_refined=0.25),
    ]
    points = point_set([clicked(tmp_path / "in" / "a.png", 5, [(1, 1, 0)]), clicked(tmp_path / "in" / "b.png", 6, [])])
    path = tmp_path / "pseudo.json"
    assert write_pseudo_labels(path, labels, points, tmp_path / "in") == 2
    opened = COCO(str(path))
    assert [image["file_name"] for image in opened.loadImgs([5, 6])] == ["a.png", "b.png"]
    for identity, mask in zip((1, 2), masks, strict=True):
        (entry,) = opened.loadAnns([identity])
        assert (opened.annToMask(entry) == mask).all()
        assert entry["area"] == mask.sum()
        assert entry["source"] == "pseudo"
    assert opened.loadAnns([1])[0]["bbox"] == [3, 4, 7, 8]
    assert opened.loadAnns([2])[0]["bbox"] == [39, 29, 1, 1]
    assert [entry["category_id"] for entry in opened.loadAnns([1, 2])] == [3, 7]
    assert [vars(label) for label in read_pseudo_labels(path)] == [vars(label) for label in labels]


def test_a_corrected_file_with_uncompressed_runs_and_without_extras_is_read(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "width": 4, "height": 3}],
        "annotations": [
            {
                "id": 9,
                "image_id": 1,
                "category_id": 7,
                "point": [1, 1],
                "segmentation": {"size": [3, 4], "counts": [3, 3, 6]},
            }
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    (label,) = read_pseudo_labels(path)
    assert (label.annotation_id, label.label, label.score) == (9, 1, 1.0)
    assert (label.pixels() == box_mask(3, 4, 1, 0, 2, 3)).all()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"image_id": 2}, "image_id is not that of an image"),
        ({"category_id": 4}, "category_id 4 is not known"),
        ({"point": [1]}, "point is not two numbers"),
        ({"segmentation": {"size": [4, 3], "counts": [12]}}, "the mask does not decode: the size"),
        ({"segmentation": {"size": [3, 4], "counts": "zzz"}}, "the mask does not decode"),
    ],
)
def test_a_wrong_label_is_refused_by_its_number(tmp_path: Path, change: dict[str, object], what: str) -> None:
    entry = {
        "id": 1,
        "image_id": 1,
        "category_id": 3,
        "point": [1, 1],
        "segmentation": {"size": [3, 4], "counts": [12]},
    }
    content = {
        "images": [{"id": 1, "width": 4, "height": 3}],
        "annotations": [entry, entry | change],
        "categories": [{"id": 3, "name": "cat"}],
    }
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"annotation 1: {what}"):
        list(read_pseudo_labels(path))


def test_refining_a_label_keeps_its_click_and_says_how_much_changed() -> None:
    label = pseudo(1, 2, box_mask(10, 10, 0, 0, 10, 5), flags=("a",))
    mask = outline_of_mask(box_mask(10, 10, 0, 0, 5, 5))
    refined = label.refined(mask, ["b"])
    assert refined.iou_rough_refined == 0.5
    assert refined.flags == ("a", "b")
    assert (refined.point, refined.score) == (label.point, label.score)
    assert mask_iou(mask, mask) == 1


def test_unresolved_clicks_are_counted_by_reason_and_read_back(tmp_path: Path) -> None:
    clicks = [
        UnresolvedClick(1, 4, 1, (2.5, 3.0), "mask too small"),
        UnresolvedClick(1, 5, 0, (2.0, 3.0), "no free cell"),
        UnresolvedClick(2, 6, 0, (2.0, 9.0), "no free cell"),
    ]
    path = tmp_path / "unresolved.json"
    write_unresolved(path, clicks, CLASSES)
    content = json.loads(path.read_text())
    assert content["counts"] == {"no free cell": 2, "mask too small": 1}
    assert content["clicks"][0]["category_id"] == 7
    assert read_unresolved(path, CLASSES) == clicks
    path.write_text('{"clicks": [{}]}')
    with pytest.raises(UserError, match="no file of unresolved clicks"):
        read_unresolved(path, CLASSES)


@pytest.mark.slow
def test_100000_labels_are_written_with_no_more_than_a_batch_of_masks_in_memory(tmp_path: Path) -> None:
    side, batch, count = 64, 50, 100_000
    rows, columns = np.mgrid[:side, :side]

    def labels() -> Iterator[PseudoLabel]:
        for start in range(0, count, batch):
            radii = 4 + np.arange(start, start + batch) % 20
            masks = np.hypot(rows - 32, columns - 32) < radii[:, None, None]  # a batch of masks
            for number, mask in enumerate(map(outline_of_mask, masks), start):
                yield PseudoLabel(1, number, 0, (32.0, 32.0), mask, 0, 0.5, 0.5)

    points = point_set([clicked(tmp_path / "a.png", 1, [])])
    tracemalloc.start()
    try:
        assert write_pseudo_labels(tmp_path / "p.json", labels(), points, tmp_path) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    of_batch = batch * side * side * (1 + 8)  # its masks, and the distances they are made from
    assert peak < 4 * of_batch < count * side * side / 50
