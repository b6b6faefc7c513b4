from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vtk_cli.console import Console
from vtk_cli.data.audit import audit, kind_of
from vtk_cli.data.detection import open_detection
from vtk_cli.data.detection.opening import splits_of
from vtk_cli.data.detection.yolo import labels_file
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
LINES = "1 0.5 0.5 0.25 0.2\n0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\n"


@pytest.fixture
def yolo(tmp_path, paint) -> Path:
    """Three 40x30 images a split: one with a box and a polygon, one with an empty file, one without a file."""
    root = tmp_path / "yolo"
    for split in ("train", "val"):
        for index in range(3):
            paint(root / "images" / split / f"{index}.png")
        labels = root / "labels" / split
        labels.mkdir(parents=True)
        (labels / "0.txt").write_text(LINES)
        (labels / "1.txt").write_text("")
    configure(root, "train: images/train\nval: images/val\nnc: 2\nnames: [cat, dog]\n")
    return root


def configure(root: Path, text: str) -> None:
    (root / "data.yaml").write_text(text)


def opened(path: Path, *, skip_bad: bool = False):
    return open_detection(path, "train", skip_bad=skip_bad, console=QUIET)


def test_boxes_and_polygons_become_pixels(yolo):
    dataset = opened(yolo)
    first = dataset.records[0]
    assert dataset.class_names == ("cat", "dog")
    assert dataset.category_ids == (0, 1)
    np.testing.assert_allclose(first.boxes, [[15, 12, 25, 18], [4, 3, 20, 18]])
    np.testing.assert_array_equal(first.labels, [1, 0])
    np.testing.assert_allclose(first.area, [60, 16 * 15])
    masks = first.masks()
    assert masks[1][3:18, 4:20].all()
    assert masks[1].sum() == 16 * 15
    assert [len(record) for record in dataset.records] == [2, 0, 0]
    assert (dataset.objects, dataset.outlined, dataset.empty) == (2, 1, 2)


def test_a_clean_dataset_passes_the_check(yolo):
    assert kind_of(yolo) == "yolo"
    result = audit(str(yolo / "data.yaml"), QUIET)
    assert result.kind == "yolo"
    assert result.problems == ()
    assert result.entries == 2 * (3 + 2)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("2 0.5 0.5 0.1 0.1", "class is not one of 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class is not one of 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "class is not one of 0 to 1"),
        ("1 0.5 0.5 0.1", "line is neither"),
        ("1 0.5 0.5 0.1 0.1 0.9", "line is neither"),
        ("1 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "line is neither"),
        ("cat 0.5 0.5 0.1 0.1", "line holds something that is no number"),
        ("1 0.5 nan 0.1 0.1", "line holds a number that is not finite"),
        ("1 0.5 0.5 inf 0.1", "line holds a number that is not finite"),
        ("1 0.5 0.5 0 0.1", "box has no area"),
        ("1 0.5 0.5 0.1 -0.1", "box has no area"),
        ("1 2.5 0.5 0.1 0.1", "box lies outside the image"),
        ("1 0.1 0.1 0.3 0.1 0.5 0.1", "polygon has no area"),
        ("1 0.5 0.5 0.25 0.2", "line is there twice"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_number_and_can_be_left_out(yolo, line, fault):
    file = yolo / "labels" / "train" / "0.txt"
    file.write_text(f"{LINES}\n{line}\n")
    with pytest.raises(UserError, match=f"1 x {fault}.*0.txt:4"):
        opened(yolo)
    assert len(opened(yolo, skip_bad=True).records[0]) == 2
    result = audit(str(yolo), QUIET)
    assert len(result.problems) == 1
    assert result.problems[0].where.startswith(f"{file}:4 (")


def test_a_box_that_reaches_out_is_clipped_where_wrong_entries_are_skipped(yolo):
    (yolo / "labels" / "train" / "0.txt").write_text("0 0.9 0.5 0.4 0.2\n")
    with pytest.raises(UserError, match="box reaches outside the image"):
        opened(yolo)
    np.testing.assert_allclose(opened(yolo, skip_bad=True).records[0].boxes, [[28, 12, 40, 18]])


def test_labels_without_their_image_are_found(yolo):
    (yolo / "images" / "train" / "0.png").unlink()
    (yolo / "labels" / "train" / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"1 x image is missing .*train/0.txt"):
        opened(yolo)


def test_an_image_that_does_not_decode_is_found(yolo):
    (yolo / "images" / "train" / "0.png").write_bytes(b"x")
    with pytest.raises(UserError, match="1 x image does not decode"):
        opened(yolo)
    assert len(opened(yolo, skip_bad=True)) == 2


def test_labels_mirror_the_images_or_lie_beside_them(tmp_path):
    assert labels_file(Path("/d/images/x/images/a.jpg")) == Path("/d/images/x/labels/a.txt")
    assert labels_file(Path("/d/train/a.jpg")) == Path("/d/train/a.txt")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.txt").write_text("")
    assert labels_file(tmp_path / "images" / "a.jpg") == tmp_path / "images" / "a.txt"


def test_a_roboflow_export_names_its_folders_from_elsewhere(tmp_path, paint):
    for split in ("train", "valid"):
        paint(tmp_path / split / "images" / "a.png")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    configure(tmp_path, "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['cat']\n")
    assert len(opened(tmp_path).records[0]) == 1
    assert len(open_detection(tmp_path, "val", console=QUIET).records[0]) == 1
    with pytest.raises(UserError, match="no folder or list of images"):
        open_detection(tmp_path, "test", console=QUIET)


def test_lists_of_images_are_read_and_do_not_lead_outside(yolo):
    (yolo / "train.txt").write_text("./images/train/0.png\nimages/train/1.png\nimages/train/9.png\n../../etc/x.png\n")
    configure(yolo, "path: .\ntrain: train.txt\nnames: {0: cat, 1: dog}\n")
    with pytest.raises(UserError, match=r"2 wrong entries: 1 x image is missing .*outside the dataset"):
        opened(yolo)
    assert [record.file.name for record in opened(yolo, skip_bad=True).records] == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("train: [", "data.yaml:.*is not YAML"),
        ("- 1\n", "is no YOLO dataset"),
        ("names: [cat]\n", "names no split"),
        ("train: images/train\n", "names no classes"),
        ("train: images/train\nnames: {0: cat, 2: dog}\n", "does not number the classes"),
        ("train: images/train\nnames: {a: cat}\n", "does not number the classes"),
        ("train: images/train\nnames: [cat]\nnc: 3\n", "nc is 3, but there are 1 names"),
        ("train: gone\nnames: [cat]\n", "no folder or list of images .*gone"),
        ("train: 5\nnames: [cat]\n", "train is 5"),
        ("train: images/train\npath: 3\nnames: [cat]\n", "path is 3"),
        ("train: !!python/object/apply:os.system ['true']\nnames: [cat]\n", "is not YAML"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(yolo, text, fault):
    configure(yolo, text)
    with pytest.raises(UserError, match=fault) as refused:
        opened(yolo)
    assert "\n" not in str(refused.value)


def test_names_may_be_a_number_of_classes_alone(yolo):
    configure(yolo, "train: images/train\nnc: 2\n")
    assert opened(yolo).class_names == ("0", "1")
    assert splits_of(yolo) == ("train",)
