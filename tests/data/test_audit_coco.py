from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.audit import audit, kind_of
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)


@pytest.fixture
def coco(coco_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(coco_folder, tmp_path / "coco")
    return tmp_path / "coco"


def found(path: Path) -> dict[str, int]:
    return audit(str(path), QUIET, "coco").counts()


def content_of(coco: Path, split: str = "val") -> dict[str, Any]:
    return json.loads((coco / "annotations" / f"instances_{split}.json").read_text())


def write(coco: Path, content: Any, split: str = "val") -> Path:
    path = coco / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
    return path


def test_the_embedded_dataset_has_no_problems(coco):
    result = audit(str(coco), QUIET)
    contents = [content_of(coco, split) for split in ("train", "val")]
    assert result.problems == ()
    assert result.kind == "coco"
    assert result.entries == sum(len(c["images"]) + len(c["annotations"]) for c in contents)


def changed(entry: dict[str, Any], **changes: Any) -> None:
    for key, value in changes.items():
        if value is ...:
            del entry[key]
        else:
            entry[key] = value


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("annotations", {"bbox": [3, 4, 0, 5]}, "box has no area"),
    ("annotations", {"bbox": [3, 4, 5, -2]}, "box has no area"),
    ("annotations", {"bbox": [120, 4, 40, 5], "point": ...}, "box reaches outside the image"),
    ("annotations", {"bbox": [-5, 4, 40, 5], "point": ...}, "box reaches outside the image"),
    ("annotations", {"bbox": [1, 2, 3], "point": ...}, "box is not four numbers"),
    ("annotations", {"bbox": [1, 2, 3, float("nan")], "point": ...}, "box is not four numbers"),
    ("annotations", {"bbox": "1 2 3 4", "point": ...}, "box is not four numbers"),
    ("annotations", {"bbox": [1, 2, 3, 10**400], "point": ...}, "box is not four numbers"),
    ("annotations", {"bbox": [1, 2, True, 4], "point": ...}, "box is not four numbers"),
    ("annotations", {"bbox": [1, 2, 3, float("inf")], "point": ...}, "box is not four numbers"),
    ("annotations", {"bbox": [128, 4, 40, 5], "point": ...}, "box lies outside the image"),
    ("annotations", {"category_id": 11}, "category is unknown"),
    ("annotations", {"category_id": "3"}, "category is unknown"),
    ("annotations", {"category_id": [3]}, "category is unknown"),
    ("annotations", {"image_id": 999}, "annotation is of an unknown image"),
    ("annotations", {"image_id": ...}, "annotation is of an unknown image"),
    ("annotations", {"id": ...}, "annotation has no id"),
    ("annotations", {"area": 0}, "area is not above 0"),
    ("annotations", {"area": "big"}, "area is not above 0"),
    ("annotations", {"iscrowd": 2}, "iscrowd is neither 0 nor 1"),
    ("annotations", {"iscrowd": []}, "iscrowd is neither 0 nor 1"),
    ("annotations", {"segmentation": {"size": [128, 128], "counts": "7"}}, "mask does not decode"),
    ("annotations", {"segmentation": {"size": [64, 64], "counts": [4096]}}, "mask does not decode"),
    ("annotations", {"segmentation": {"size": [128, 128], "counts": [1, 2, 3]}}, "mask does not decode"),
    ("annotations", {"segmentation": "poly"}, "mask does not decode"),
    ("annotations", {"segmentation": {"size": [128, 128], "counts": [16384]}}, "mask is empty"),
    ("annotations", {"segmentation": [[1, 1, 5, 5]]}, "polygon is not three or more points"),
    ("annotations", {"segmentation": [[1, 1, 5, 5, 1, 9, 2]]}, "polygon is not three or more points"),
    ("annotations", {"segmentation": [5]}, "polygon is not three or more points"),
    ("annotations", {"segmentation": [[1, 1, 5, 5, 200, 9]]}, "mask reaches outside the image"),
    ("annotations", {"point": [500, 3], "bbox": ...}, "point is outside the image"),
    ("annotations", {"point": [5], "bbox": ...}, "point is not two numbers"),
    ("annotations", {"point": [100, 100], "bbox": [10, 10, 20, 20]}, "point is outside its box"),
    ("annotations", {"point": ..., "bbox": ..., "segmentation": ...}, "annotation has no box, mask or point"),
    ("images", {"file_name": "gone.png"}, "image is missing"),
    ("images", {"file_name": "x" * 5000}, "image is missing"),
    ("images", {"file_name": "../train/000001.png"}, "image file lies outside the folder of the images"),
    ("images", {"file_name": "/etc/hostname"}, "image file lies outside the folder of the images"),
    ("images", {"file_name": ...}, "image has no id or no file name"),
    ("images", {"height": ...}, "image has no width or no height"),
    ("images", {"width": "128"}, "image has no width or no height"),
    ("categories", {"name": "nine"}, "category has another name in another file"),
    ("categories", {"name": ...}, "category has no id or no name"),
]


@pytest.mark.parametrize(("section", "changes", "what"), FAULTS)
def test_each_fault_is_found_once_and_alone(coco, section, changes, what):
    content = content_of(coco)
    changed(content[section][3], **changes)
    path = write(coco, content)
    result = audit(str(coco), QUIET)
    assert result.counts() == {what: 1}
    assert str(path) in result.problems[0].where


@pytest.mark.parametrize(
    ("section", "what"),
    [("annotations", "annotation id is used twice"), ("categories", "category id is used twice")],
)
def test_an_id_used_twice_is_found(coco, section, what):
    content = content_of(coco)
    content[section].append(copy.deepcopy(content[section][2]))
    write(coco, content)
    assert set(found(coco)) == {what}


def test_an_image_listed_twice_is_found_by_id_and_by_file(coco):
    content = content_of(coco)
    content["images"].append(dict(content["images"][0], file_name=content["images"][1]["file_name"]))
    content["images"].append(dict(content["images"][2], id=999))
    write(coco, content)
    assert found(coco) == {"image file is listed twice": 4, "image id is used twice": 2}


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
@pytest.mark.parametrize("entry", [None, 5, "x", [1]])
def test_entries_that_are_no_objects_are_found(coco, section, entry):
    content = content_of(coco)
    content[section].append(entry)
    write(coco, content)
    assert sum(found(coco).values()) == 1


def test_images_that_do_not_decode_are_found(coco):
    (coco / "val" / "000002.png").write_bytes((coco / "val" / "000002.png").read_bytes()[:300])
    result = audit(str(coco), QUIET)
    assert result.counts() == {"image does not decode": 1}
    assert "000002.png" in result.problems[0].where


def test_an_image_of_another_size_than_listed_is_found(coco):
    Image.new("RGB", (30, 20)).save(coco / "val" / "extra.png")
    content = content_of(coco)
    content["images"].append({"id": 77, "file_name": "extra.png", "width": 20, "height": 30})
    write(coco, content)
    result = audit(str(coco), QUIET)
    assert result.counts() == {"image has another size than listed": 1}
    assert "extra.png is 30x20, listed as 20x30" in result.problems[0].where


def test_crowds_polygons_and_boxes_alone_are_fine(coco):
    content = content_of(coco)
    first, second, third = content["annotations"][:3]
    changed(first, iscrowd=1, segmentation={"size": [128, 128], "counts": [100, 16284]}, bbox=[0, 0, 128, 128])
    changed(second, segmentation=[[1, 1, 50, 1, 50, 50.5], [3, 3, 9, 3, 9, 9]])
    changed(third, segmentation=[], point=...)
    write(coco, content)
    assert found(coco) == {}


def test_a_size_is_that_of_the_upright_image(coco):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(coco / "val" / "turned.jpg", exif=exif)
    content = content_of(coco)
    content["images"].append({"id": 77, "file_name": "turned.jpg", "width": 100, "height": 200})
    write(coco, content)
    assert found(coco) == {}


def roboflow(root: Path) -> Path:
    for split in ("train", "valid"):
        (root / split).mkdir(parents=True)
        Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(root / split / "a.jpg")
        content = {
            "images": [{"id": 0, "file_name": "a.jpg", "width": 20, "height": 10}],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25}],
            "categories": [{"id": 0, "name": "things"}, {"id": 1, "name": "cat"}],
        }
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def test_roboflow_exports_are_read(tmp_path):
    root = roboflow(tmp_path)
    assert kind_of(root) == "coco"
    result = audit(str(root), QUIET)
    assert result.problems == ()
    assert result.entries == 4


def test_one_annotation_file_is_read_with_the_images_of_its_split(coco):
    result = audit(str(coco / "annotations" / "instances_val.json"), QUIET)
    assert result.problems == ()
    assert result.kind == "coco"
    (coco / "images").mkdir()
    (coco / "val").rename(coco / "images" / "val")
    assert audit(str(coco / "annotations" / "instances_val.json"), QUIET).problems == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "is not JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": [], "annotations": {}}', "has no list 'annotations'"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_not_coco_is_an_error(tmp_path, text, fault):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=fault):
        audit(str(tmp_path / "x.json"), QUIET)


def test_a_folder_without_annotations_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no COCO annotations"):
        audit(str(tmp_path), QUIET, "coco")
