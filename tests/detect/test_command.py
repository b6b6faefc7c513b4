"""Wrong usage and wrong data at the command line of `vtk detect`: one line, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.detect.coloured_shapes import one_line, train_arguments


def faulty(data: Path, tmp_path: Path, change) -> Path:
    """A copy of the training split with one change to its annotations."""
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").symlink_to(data / "train2017")
    (root / "val2017").symlink_to(data / "val2017")
    for split in ("train2017", "val2017"):
        content = json.loads((data / f"annotations/instances_{split}.json").read_text())
        if split == "train2017":
            change(content)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def set_box(content, number, box):
    content["annotations"][number]["bbox"] = box


FAULTS = {
    "2 x box": lambda content: [set_box(content, number, [-30, 3, 12, 12]) for number in (0, 4)],
    "box has no area": lambda content: set_box(content, 1, [3, 3, 0, 12]),
    "box": lambda content: set_box(content, 1, [float("nan"), 3, 5, 12]),
    "category": lambda content: content["annotations"][2].update(category_id=77),
    "twice": lambda content: content["images"][1].update(id=1),
    "missing": lambda content: content["images"][1].update(file_name="not-there.png"),
    "outside": lambda content: content["images"][1].update(file_name="../../../etc/passwd"),
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict"], "name images"),
        (["predict", "nowhere.jpg", "--model", "x"], "no such image"),
        (["eval"], "which detector?"),
        (["eval", "nowhere"], "no such run folder or weight file"),
        (["export"], "which detector?"),
        (["convert"], "which file?"),
        (["convert", "nowhere.pth"], "no such file"),
        (["train", "nowhere"], "no such file, folder or embedded dataset"),
        (["train", "--model", "vidt-huge"], "unknown detector"),
        (["train", "--recipe", "papper"], "did you mean paper"),
        (["train", "--weights", "nowhere.pth"], "no such run folder or weight file"),
        (["train", "--reset-head"], "no classifier to replace"),
        (["train", "--augment", "modern"], "one square size"),
        (["train", "--mosaic", "0.5"], "square canvas"),
        (["train", "--resize", "stretch", "--augment", "paper"], "sizes vary"),
        (["train", "--model", "vidt-neck-free-micro", "--masks", "on"], "learns no masks"),
        (["train", "--warmup-steps", "5000"], "leave nothing"),
        (["train", "--min-lr", "1"], "above the learning rate"),
        (["bench", "nowhere"], "no such run folder"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing(arguments, said, run, place):
    code, _, err = run(*arguments)
    assert code == 2
    assert said in one_line(err)
    assert [*place.iterdir()] == []


@pytest.mark.parametrize("said", FAULTS)
def test_wrong_entries_are_refused_with_their_count_and_nothing_is_written(said, data, tmp_path, run):
    root = faulty(data, tmp_path, FAULTS[said])
    code, _, err = run(*train_arguments(root))
    assert code == 2
    line = one_line(err)
    assert said in line
    assert "wrong entries" in line
    assert "--skip-bad" in line
    assert not Path("runs").exists()


@pytest.mark.parametrize("said", ["2 x box", "category", "missing"])
def test_wrong_entries_can_be_left_out(said, data, tmp_path, run):
    root = faulty(data, tmp_path, FAULTS[said])
    code, _, err = run(*train_arguments(root), "--skip-bad", "--steps", "2", "-o", "run")
    assert code == 0, err
    assert "left out" in err
    assert "left out or mended" in Path("run/report.html").read_text()


def test_crowds_and_images_without_objects_are_no_fault(data, tmp_path, run):
    def change(content):
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 1]
        content["annotations"][0].update(iscrowd=1, segmentation={"size": [60, 72], "counts": [0, 4320]})

    code, _, err = run(*train_arguments(faulty(data, tmp_path, change)), "--steps", "3", "-o", "run")
    assert code == 0, err
    assert "1 crowd" in err
    assert "1 images without objects" in err


def test_data_without_a_single_object_is_refused(data, tmp_path, run):
    root = faulty(data, tmp_path, lambda content: content["annotations"].clear())
    code, _, err = run(*train_arguments(root))
    assert code == 2
    assert "0 annotated images of 12" in one_line(err)


def test_masks_of_objects_without_outlines_are_refused(data, tmp_path, run):
    root = faulty(data, tmp_path, lambda content: [one.pop("segmentation") for one in content["annotations"]])
    code, _, err = run(*train_arguments(root), "--masks", "on")
    assert code == 2
    assert "masks requested but 0 of 24 annotations have segmentation" in one_line(err)


def test_truncated_json_is_refused_with_its_line(data, tmp_path, run):
    root = faulty(data, tmp_path, lambda content: None)
    file = root / "annotations/instances_train2017.json"
    file.write_text(file.read_text()[:200])
    code, _, err = run(*train_arguments(root))
    assert code == 2
    assert "is not JSON" in one_line(err)


def test_weights_of_another_size_are_refused(data, trained, run):
    code, _, err = run(*train_arguments(data), "--weights", trained)
    assert code == 2
    assert "is of another size: neck epff, not projection" in one_line(err)


def test_splits_with_other_classes_are_refused(data, tmp_path, run):
    root = faulty(data, tmp_path, lambda content: content["categories"][0].update(name="crimson"))
    code, _, err = run(*train_arguments(root))
    assert code == 2
    assert "the classes differ" in one_line(err)


def test_eval_on_classes_that_the_detector_does_not_know_is_refused(data, trained, tmp_path, run):
    def change(content):
        content["categories"][0]["name"] = "crimson"

    root = faulty(data, tmp_path, change)
    code, _, err = run("eval", trained, root, "--split", "train")
    assert code == 2
    assert "does not know crimson" in one_line(err)
