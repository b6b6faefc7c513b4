from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vtk_cli.console import Console
from vtk_cli.data.audit import audit, kind_of
from vtk_cli.data.detection import check_same_classes, open_detection
from vtk_cli.data.detection.opening import splits_of
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


def page(name: str, objects: str, size: str = SIZE) -> str:
    return f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def thing(name: str, *box: object, difficult: int = 0) -> str:
    corners = "".join(f"<{tag}>{at}</{tag}>" for tag, at in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


@pytest.fixture
def voc(tmp_path, paint) -> Path:
    root = tmp_path / "VOC2012"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    pages = (
        thing("dog", 1, 1, 40, 30) + thing("cat", 11, 6, 20, 15, difficult=1),
        thing("cat", 3, 4, 3, 4),
        "",
        thing("ant", 1, 1, 5, 5),
    )
    for index, objects in enumerate(pages):
        paint(root / "JPEGImages" / f"{index}.jpg")
        (root / "Annotations" / f"{index}.xml").write_text(page(f"{index}.jpg", objects))
    (root / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n2\n")
    (root / "ImageSets" / "Main" / "val.txt").write_text("3\n")
    (root / "ImageSets" / "Main" / "cat_train.txt").write_text("0 1\n")
    return root


def opened(root: Path, *, skip_bad: bool = False):
    return open_detection(root, "train", skip_bad=skip_bad, console=QUIET)


def test_pixels_count_from_one_and_the_last_belongs_to_the_box(voc):
    first, second, third = opened(voc).records
    np.testing.assert_array_equal(first.boxes, [[0, 0, 40, 30], [10, 5, 20, 15]])
    np.testing.assert_array_equal(second.boxes, [[2, 3, 3, 4]])
    assert len(third) == 0


def test_difficult_objects_are_crowds(voc):
    assert opened(voc).records[0].crowd.tolist() == [False, True]


def test_classes_are_those_of_all_splits(voc):
    train, val = (open_detection(voc, split, console=QUIET) for split in ("train", "val"))
    assert train.class_names == ("ant", "cat", "dog")
    assert train.category_ids == (1, 2, 3)
    check_same_classes(train, val)
    assert val.records[0].labels.tolist() == [0]
    assert splits_of(voc) == ("train", "val")


def test_the_folder_above_is_found_too(voc):
    (voc.parent / "VOCdevkit").mkdir()
    voc.rename(voc.parent / "VOCdevkit" / "VOC2012")
    assert len(opened(voc.parent)) == 3


def test_a_clean_dataset_passes_the_check(voc):
    assert kind_of(voc) == "voc"
    result = audit(str(voc), QUIET)
    assert result.problems == ()
    assert result.entries == 4 + 4


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (page("1.jpg", thing("cat", 5, 5, 4, 9)), "box has no area"),
        (page("1.jpg", thing("cat", 5, 5, "nan", 9)), "box is not four numbers"),
        (page("1.jpg", thing("cat", 5, 5, 9)), "box is not four numbers"),
        (page("1.jpg", thing("cat", 50, 5, 60, 9)), "box lies outside the image"),
        (page("1.jpg", thing("", 5, 5, 6, 9)), "object has no name"),
        (page("../1.jpg", ""), "image file lies outside the folder of the images"),
        (page("/etc/passwd", ""), "image file lies outside the folder of the images"),
        (page("1.jpg", "", "<size><width>3</width><height>9</height></size>"), "image has another size than listed"),
        (page("0.jpg", ""), "image file is listed twice"),
        ("<annotation><filename>", "annotation is not XML"),
        ("<html></html>", "annotation is not of Pascal VOC"),
    ],
)
def test_a_wrong_entry_is_refused_and_can_be_left_out(voc, text, fault):
    (voc / "Annotations" / "1.xml").write_text(text)
    with pytest.raises(UserError, match=f"1 wrong entries: 1 x {fault} .*1.xml"):
        opened(voc)
    assert opened(voc, skip_bad=True).left_out == ((fault, 1),)
    assert audit(str(voc), QUIET).counts() == {fault: 1}


def test_entities_that_grow_without_bound_are_refused(voc):
    levels = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "aaaaaaaaaa">{levels}]><annotation><filename>&e11;</filename></annotation>'
    (voc / "Annotations" / "1.xml").write_text(bomb)
    with pytest.raises(UserError, match="annotation is not XML"):
        opened(voc)


def test_missing_images_and_annotations_are_found(voc):
    (voc / "JPEGImages" / "1.jpg").unlink()
    (voc / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n2\n77\n")
    with pytest.raises(UserError, match=r"1 x listed annotation is missing .*train.txt:4.*, 1 x image is missing"):
        opened(voc)
    assert len(opened(voc, skip_bad=True)) == 2


def test_a_box_that_reaches_out_is_clipped(voc):
    (voc / "Annotations" / "1.xml").write_text(page("1.jpg", thing("cat", 31, 11, 60, 20)))
    with pytest.raises(UserError, match="box reaches outside the image"):
        opened(voc)
    np.testing.assert_array_equal(opened(voc, skip_bad=True).records[1].boxes, [[30, 10, 40, 20]])


def test_a_roboflow_export_has_its_files_beside_the_images(tmp_path, paint):
    for split in ("train", "valid"):
        paint(tmp_path / split / "a.jpg")
        (tmp_path / split / "a.xml").write_text(page("a.jpg", thing("cat", 1, 1, 5, 5)))
    assert splits_of(tmp_path) == ("train", "val")
    assert len(open_detection(tmp_path, "val", console=QUIET).records[0]) == 1


def test_one_folder_of_images_and_files_serves_any_split(tmp_path, paint):
    paint(tmp_path / "a.PNG")
    (tmp_path / "a.xml").write_text(page("", thing("cat", 1, 1, 5, 5), ""))
    assert splits_of(tmp_path) == ()
    assert open_detection(tmp_path, "val", console=QUIET).records[0].file == tmp_path / "a.PNG"


def test_files_that_name_nothing_are_refused(tmp_path, paint):
    paint(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(page("a.png", ""))
    with pytest.raises(UserError, match="name no object"):
        opened(tmp_path)
