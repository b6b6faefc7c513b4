from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from vtk_cli.console import Console
from vtk_cli.data.detection.coco import read_coco
from vtk_cli.data.detection.outlines import Polygons
from vtk_cli.errors import UserError
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.segment.labels.inputs import check_parts
from vtk_cli.segment.pseudo.merging import write_merged

from ..scenes_with_masks import box_mask, clicked, full_set, point_set, pseudo, record

QUIET = Console(quiet=True)
ONE, TWO = box_mask(30, 40, 3, 4, 10, 12), box_mask(30, 40, 20, 4, 36, 25)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def test_the_merged_file_has_every_image_and_annotation_once_and_ids_from_1(tmp_path: Path) -> None:
    strong = full_set([record(tmp_path / "s" / "a.png", 50, [(0, ONE), (1, TWO)], crowds=[1])])
    weak = point_set(
        [
            clicked(tmp_path / "w" / "b.png", 7, [(5, 6, 0), (30, 20, 1)], first=50),
            clicked(tmp_path / "w" / "c.png", 8, []),
        ]
    )
    labels = [pseudo(7, 50, ONE, 0), pseudo(7, 51, TWO, 1)]
    merged = write_merged(tmp_path / "out" / "merged.json", strong, weak, iter(labels))
    assert (merged.images, merged.strong, merged.pseudo) == (3, 2, 2)
    assert merged.images_folder == tmp_path
    opened = COCO(str(merged.path))
    assert [image["id"] for image in opened.dataset["images"]] == [7, 8, 50]
    assert [image["file_name"] for image in opened.dataset["images"]] == ["w/b.png", "w/c.png", "s/a.png"]
    entries = opened.dataset["annotations"]
    assert [entry["id"] for entry in entries] == [1, 2, 3, 4]
    assert [entry["image_id"] for entry in entries] == [50, 50, 7, 7]
    assert [entry["iscrowd"] for entry in entries] == [0, 1, 0, 0]
    assert all((opened.annToMask(entry) == mask).all() for entry, mask in zip(entries, (ONE, TWO) * 2, strict=True))
    again = read_coco(merged.path, QUIET, merged.images_folder)
    assert not again.problems
    assert [len(image) for image in again.records] == [2, 0, 2]


def test_polygons_stay_polygons(tmp_path: Path) -> None:
    one = record(tmp_path / "a.png", 1, [(0, ONE)])
    corners = np.array([[3.0, 4.0], [10.0, 4.0], [10.0, 12.0], [3.0, 12.0]])
    one = type(one)(**{**vars(one), "outlines": (Polygons((corners,)),)})
    merged = write_merged(tmp_path / "m.json", full_set([one]), point_set([clicked(tmp_path / "b.png", 2, [])]), [])
    opened = COCO(str(merged.path))
    assert opened.dataset["annotations"][0]["segmentation"] == [corners.ravel().tolist()]
    assert (opened.annToMask(opened.dataset["annotations"][0]) == ONE).all()


@pytest.mark.parametrize(("name", "identity"), [("a.png", 2), ("b.png", 1)])
def test_an_image_in_both_parts_is_refused(tmp_path: Path, name: str, identity: int) -> None:
    strong = full_set([record(tmp_path / "a.png", 1, [(0, ONE)])])
    weak = point_set([clicked(tmp_path / name, identity, [(1, 1, 0)])])
    with pytest.raises(UserError, match="1 images are fully labelled and clicked too"):
        check_parts(strong, weak, QUIET)
    with pytest.raises(UserError, match="1 images are fully labelled and clicked too"):
        write_merged(tmp_path / "m.json", strong, weak, [])


def test_a_label_of_an_image_that_is_not_clicked_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    strong = full_set([record(tmp_path / "a.png", 1, [(0, ONE)])])
    weak = point_set([clicked(tmp_path / "b.png", 2, [(1, 1, 0)])])
    with pytest.raises(UserError, match="of image 3, which is not clicked"):
        write_merged(tmp_path / "m.json", strong, weak, [pseudo(3, 1, ONE)])
    assert not (tmp_path / "m.json").exists()
