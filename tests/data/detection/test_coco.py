from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.detection import check_same_classes, open_detection
from vtk_cli.data.detection.opening import splits_of
from vtk_cli.data.detection.records import require_objects, require_outlines
from vtk_cli.data.embedded import open_embedded
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
IMAGES = ("a.png", "b.png", "c.png")


def content() -> dict[str, Any]:
    """Three 40x30 images: one with two objects, one of them outlined; one with a crowd and an object; one empty."""
    return {
        "images": [{"id": 7 + i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(IMAGES)],
        "annotations": [
            {
                "id": 0,
                "image_id": 7,
                "category_id": 5,
                "bbox": [2, 3, 10, 8],
                "area": 61,
                "segmentation": [[2, 3, 12, 3, 12, 11]],
            },
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [20, 10, 10.5, 8]},
            {
                "id": 2,
                "image_id": 8,
                "category_id": 3,
                "bbox": [0, 0, 40, 30],
                "area": 1200,
                "iscrowd": 1,
                "segmentation": {"size": [30, 40], "counts": [0, 1200]},
            },
            {"id": 3, "image_id": 8, "category_id": 3, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0},
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


@pytest.fixture
def coco(tmp_path, paint) -> Path:
    root = tmp_path / "coco"
    for split in ("train2017", "val2017"):
        for name in IMAGES:
            paint(root / split / name)
        write(root, content(), split)
    return root


def write(root: Path, what: Any, split: str = "train2017") -> None:
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(what if isinstance(what, str) else json.dumps(what))


def opened(root: Path, *, skip_bad: bool = False):
    return open_detection(root, "train", skip_bad=skip_bad, console=QUIET)


def test_records_hold_what_the_file_says(coco):
    dataset = opened(coco)
    first, second, third = dataset.records
    assert dataset.class_names == ("dog", "cat")
    assert dataset.category_ids == (3, 5)
    assert [record.id for record in dataset.records] == [7, 8, 9]
    np.testing.assert_array_equal(first.boxes, [[2, 3, 12, 11], [20, 10, 30.5, 18]])
    np.testing.assert_array_equal(first.labels, [1, 0])
    np.testing.assert_array_equal(first.area, [61, 84])  # the second has none of its own: its box's
    np.testing.assert_array_equal(second.crowd, [True, False])
    assert third.boxes.shape == (0, 4)
    assert (dataset.objects, dataset.crowds, dataset.empty, dataset.outlined) == (3, 1, 1, 1)
    assert dataset.most_objects == 2
    np.testing.assert_array_equal(dataset.class_counts(), [2, 1])
    assert first.read().size == (40, 30)


def test_masks_are_outlines_or_else_boxes(coco):
    first, second, third = opened(coco).records
    masks = first.masks()
    assert masks.shape == (2, 30, 40)
    assert masks[0].sum() == pytest.approx(40, abs=6)  # half of the box of 80
    assert masks[1].sum() == 8 * 10  # columns 20 to 29; the centre of column 30 is the box's edge
    assert second.masks()[0].all()
    assert third.masks().shape == (0, 30, 40)


def test_a_dataset_that_is_opened_again_is_not_decoded_again(coco, monkeypatch):
    before = opened(coco)
    monkeypatch.setattr("vtk_cli.data.detection.sizes.decode_image", lambda path: pytest.fail(f"decoded {path}"))
    assert len(opened(coco)) == len(before)


def test_an_image_that_changed_is_decoded_again(coco):
    opened(coco)
    Image.new("RGB", (41, 30)).save(coco / "train2017" / "a.png")
    with pytest.raises(UserError, match="another size"):
        opened(coco)


FAULTS = [
    ("annotations", 1, {"bbox": [3, 4, 0, 5]}, "box has no area"),
    ("annotations", 1, {"bbox": [3, 4, 5, -2]}, "box has no area"),
    ("annotations", 1, {"bbox": [3, 4, float("nan"), 2]}, "box is not four numbers"),
    ("annotations", 1, {"bbox": [3, 4, 5, 10**400]}, "box is not four numbers"),
    ("annotations", 1, {"bbox": [50, 4, 5, 5]}, "box lies outside the image"),
    ("annotations", 1, {"bbox": [-9, 4, 5, 5]}, "box lies outside the image"),
    ("annotations", 1, {"category_id": 7}, "category is unknown"),
    ("annotations", 1, {"image_id": 99}, "annotation is of an unknown image"),
    ("annotations", 1, {"bbox": ..., "point": [3, 3]}, "annotation has no box"),
    ("annotations", 1, {"iscrowd": 3}, "iscrowd is neither 0 nor 1"),
    ("annotations", 1, {"segmentation": {"size": [30, 40], "counts": [5]}}, "mask does not decode"),
    ("images", 0, {"file_name": "gone.png"}, "image is missing"),
    ("images", 0, {"file_name": "../val2017/a.png"}, "image file lies outside the folder of the images"),
    ("images", 0, {"file_name": "/etc/passwd"}, "image file lies outside the folder of the images"),
    ("images", 0, {"width": 30, "height": 40}, "image has another size than listed"),
    ("images", 0, {"id": "7"}, "image id is no integer"),
]


@pytest.mark.parametrize(("section", "index", "changes", "fault"), FAULTS)
def test_a_wrong_entry_is_refused_and_can_be_left_out(coco, section, index, changes, fault):
    what = content()
    for key, value in changes.items():
        what[section][index][key] = value
        if value is ...:
            del what[section][index][key]
    if changes.get("id") == "7":
        what["annotations"] = [one for one in what["annotations"] if one["image_id"] != 7]
    write(coco, what)
    with pytest.raises(UserError, match=f"1 wrong entries: 1 x {fault} .*--skip-bad.*vtk data check") as refused:
        opened(coco)
    assert "\n" not in str(refused.value)
    dataset = opened(coco, skip_bad=True)
    assert dataset.left_out == ((fault, 1),)
    kept = {record.id: len(record) for record in dataset.records}
    assert kept == ({7: 1, 8: 2, 9: 0} if section == "annotations" else {8: 2, 9: 0})


@pytest.mark.parametrize(
    ("changes", "box", "area"),
    [
        ({"bbox": [35, 20, 10, 20]}, [35, 20, 40, 30], 50),
        ({"bbox": [-5, -5, 10, 20], "area": 200}, [0, 0, 5, 15], 75),
        ({"area": 0}, [20, 10, 30.5, 18], 84),
        ({"area": -4}, [20, 10, 30.5, 18], 84),
    ],
)
def test_what_is_inside_the_image_is_kept_of_a_box_that_reaches_out(coco, changes, box, area):
    what = content()
    what["annotations"][1] |= changes
    write(coco, what)
    with pytest.raises(UserError, match="1 wrong entries"):
        opened(coco)
    record = opened(coco, skip_bad=True).records[0]
    np.testing.assert_array_equal(record.boxes[1], box)
    assert record.area[1] == area


def test_a_box_less_than_a_pixel_outside_is_clipped_and_no_fault(coco):
    what = content()
    what["annotations"][1]["bbox"] = [-0.4, 0, 40.6, 30.2]
    write(coco, what)
    np.testing.assert_array_equal(opened(coco).records[0].boxes[1], [0, 0, 40, 30])


def test_an_annotation_that_is_there_twice_is_kept_once_and_two_with_one_id_are_both_kept(coco):
    what = content()
    what["annotations"] += [dict(what["annotations"][1]), dict(what["annotations"][3], bbox=[5, 5, 9, 9])]
    write(coco, what)
    with pytest.raises(UserError, match="4 x annotation id is used twice"):
        opened(coco)
    assert [len(record) for record in opened(coco, skip_bad=True).records] == [2, 3, 0]


def test_images_with_one_id_are_left_out(coco):
    what = content()
    what["images"][1]["id"] = 7
    what["annotations"] = what["annotations"][:2]
    write(coco, what)
    with pytest.raises(UserError, match="2 x image id is used twice"):
        opened(coco)
    assert [record.id for record in opened(coco, skip_bad=True).records] == [9]


def test_the_first_five_missing_images_are_named(coco):
    what = content()
    what["images"] += [{"id": 100 + i, "file_name": f"gone{i}.png", "width": 9, "height": 9} for i in range(8)]
    write(coco, what)
    with pytest.raises(UserError, match="8 x image is missing") as refused:
        opened(coco)
    assert [f"gone{i}.png" in str(refused.value) for i in range(8)] == [True] * 5 + [False] * 3


def test_a_truncated_image_is_found_when_the_dataset_is_opened(coco):
    file = coco / "train2017" / "b.png"
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(UserError, match="1 x image does not decode"):
        opened(coco)
    assert [record.id for record in opened(coco, skip_bad=True).records] == [7, 9]


def test_truncated_json_is_one_clear_line(coco):
    write(coco, json.dumps(content(), indent=1)[:400])
    with pytest.raises(UserError, match=r"instances_train2017.json:\d+: is not JSON"):
        opened(coco, skip_bad=True)


@pytest.mark.parametrize(
    ("categories", "fault"),
    [
        ([{"id": 3, "name": "a"}, {"id": 3, "name": "b"}], "category id is used twice"),
        ([{"id": 3}], "category has no id or no name"),
        ([], "has no categories"),
    ],
)
def test_classes_that_are_not_certain_are_refused_whatever_is_skipped(coco, categories, fault):
    write(coco, content() | {"categories": categories})
    with pytest.raises(UserError, match=fault):
        opened(coco, skip_bad=True)


def test_nothing_annotated_is_nothing_to_train_on(coco):
    write(coco, content() | {"annotations": []})
    with pytest.raises(UserError, match="0 annotated images of 3"):
        require_objects(opened(coco))


def test_no_images_are_refused(coco):
    write(coco, content() | {"images": [], "annotations": []})
    with pytest.raises(UserError, match="no images"):
        opened(coco)


def test_masks_can_be_required(coco):
    with pytest.raises(UserError, match="1 of 3 annotations have segmentation"):
        require_outlines(opened(coco))
    require_outlines(opened(open_embedded("digits-coco", train=2, val=1).folder))


def test_splits_are_found_by_their_names(coco):
    assert splits_of(coco) == ("train", "val")
    assert opened(coco).name.endswith("instances_train2017.json")
    with pytest.raises(UserError, match="has no test split"):
        open_detection(coco, "test", console=QUIET)
    file = coco / "annotations" / "instances_train2017.json"
    assert len(open_detection(file, "train", console=QUIET)) == 3
    with pytest.raises(UserError, match="has no val split"):
        open_detection(file, "val", console=QUIET)
    shutil.move(file, coco / "train2017" / "mine.json")
    assert splits_of(coco / "train2017" / "mine.json") == ()
    assert len(open_detection(coco / "train2017" / "mine.json", "val", console=QUIET)) == 3


def test_test_stands_in_for_val_with_a_warning(coco, capsys):
    (coco / "annotations" / "instances_val2017.json").rename(coco / "annotations" / "instances_test.json")
    (coco / "val2017").rename(coco / "test")
    assert open_detection(coco, "val", console=Console()).name.endswith("instances_test.json")
    assert "no val split; test stands in" in capsys.readouterr().err


def test_roboflow_exports_are_read_without_their_grouping_category(tmp_path, paint):
    for split in ("train", "valid"):
        paint(tmp_path / split / "a.png")
        what = {
            "images": [{"id": 0, "file_name": "a.png", "width": 40, "height": 30}],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}],
            "categories": [
                {"id": 0, "name": "pets", "supercategory": "none"},
                {"id": 1, "name": "cat", "supercategory": "pets"},
                {"id": 2, "name": "dog", "supercategory": "pets"},
            ],
        }
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(what))
    train, val = (open_detection(tmp_path, split, console=QUIET) for split in ("train", "val"))
    assert train.class_names == ("cat", "dog")
    assert train.category_ids == (1, 2)
    check_same_classes(train, val)


def test_classes_that_differ_between_splits_are_named(coco):
    what = content()
    what["categories"].append({"id": 9, "name": "owl"})
    write(coco, what, "val2017")
    val = open_detection(coco, "val", console=QUIET)
    with pytest.raises(UserError, match=r"classes differ: 1 only in .*val2017.json \(9 owl\)"):
        check_same_classes(opened(coco), val)


def test_an_upright_size_is_meant(coco):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(coco / "train2017" / "turned.jpg", exif=exif)
    what = content()
    what["images"][2]["file_name"] = "turned.jpg"
    write(coco, what)
    assert opened(coco).records[2].read().size == (40, 30)


def test_what_is_left_out_is_counted_in_a_warning_and_crowds_in_a_note(coco, capsys):
    what = content()
    what["annotations"][1]["bbox"] = [1, 1, 0, 0]
    what["annotations"][3]["category_id"] = 1
    write(coco, what)
    open_detection(coco, "train", skip_bad=True, console=Console())
    said = capsys.readouterr().err
    assert "2 wrong entries left out" in said
    assert "1 x box has no area" in said
    assert "1 x category is unknown" in said
    assert "1 crowd regions, which are not trained on" in said
    assert "2 images without objects" in said


def test_the_embedded_dataset_is_opened_by_its_name(monkeypatch):
    small = open_embedded("digits-coco", train=2, val=1)
    monkeypatch.setattr("vtk_cli.data.detection.opening.open_embedded", lambda name, console: small)
    dataset = open_detection("digits-coco", "train", console=QUIET)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.outlined == dataset.objects > 0
    for record in dataset.records:  # a box of the embedded dataset is tight around its mask, and its area the mask's
        np.testing.assert_array_equal(record.masks().sum(axis=(1, 2)), record.area)
        for mask, box in zip(record.masks(), record.boxes, strict=True):
            rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_the_box_that_evaluation_compares_with_is_the_files_to_the_bit(coco):
    what = content()
    what["annotations"][0]["bbox"] = [0.1, 0.2, 12.3, 29.81]
    what["annotations"][1]["bbox"] = [-0.3, 0.7, 3.3, 0.1]
    write(coco, what)
    first = opened(coco).records[0]
    assert first.given.tolist() == [[0.1, 0.2, 12.3, 29.81], [-0.3, 0.7, 3.3, 0.1]]
    assert first.boxes.min() == 0
    assert first.boxes.max() == 30


def test_what_is_no_dataset_is_refused(tmp_path, coco):
    (tmp_path / "x.txt").write_text("")
    for path, fault in (
        ("digits-cco", "did you mean digits-coco"),
        (tmp_path / "x.txt", "neither a COCO file"),
        (coco / "train2017", "holds no boxes; expected COCO"),
    ):
        with pytest.raises(UserError, match=fault):
            open_detection(path, "train", console=QUIET)
