from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.classification import open_eval_set
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
NAMES = ("ant", "bee", "cat", "dog")


def fill(root: Path, *names: str) -> Path:
    """One image a class folder, whose red is the folder's place in the list."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(root / name / "x.png")
    return root


def test_class_folders_that_are_a_part_of_the_classes_keep_the_labels_of_training(tmp_path: Path) -> None:
    found = open_eval_set(fill(tmp_path, "dog", "bee"), NAMES, console=QUIET)
    assert found.source.names == ("bee/x.png", "dog/x.png")
    assert found.source.targets.tolist() == [1, 3]
    assert found.source.class_names == NAMES
    assert found.classes == (1, 3)
    assert found.label_sets is None


def test_with_all_classes_nothing_is_restricted(tmp_path: Path) -> None:
    assert open_eval_set(fill(tmp_path, *NAMES), NAMES, console=QUIET).classes is None


def test_folders_of_unknown_classes_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = open_eval_set(fill(tmp_path, "dog", "emu", "ant"), NAMES, console=QUIET)
    assert found.source.targets.tolist() == [0, 3]
    assert [found.source.read(index).getpixel((0, 0))[0] for index in range(2)] == [2, 0]  # type: ignore[index]
    assert "1 class folders left out" in capsys.readouterr().err


def test_a_set_without_any_class_of_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of its 2 class folders \(emu, fox\) is one of the 4 classes"):
        open_eval_set(fill(tmp_path, "emu", "fox"), NAMES, console=QUIET)
    with pytest.raises(UserError, match="no such folder"):
        open_eval_set(tmp_path / "nowhere", NAMES, console=QUIET)


def test_folders_that_are_numbers_are_labels_in_the_order_of_numbers(tmp_path: Path) -> None:
    """As strings, 10 comes before 2 (the folders of ImageNet-V2)."""
    names = tuple(f"n{label:08d}" for label in range(12))
    found = open_eval_set(fill(tmp_path, *map(str, range(12))), names, console=QUIET)
    for index, target in enumerate(found.source.targets.tolist()):
        assert found.source.names[index] == f"{target}/x.png"
        assert found.source.read(index).getpixel((0, 0)) == (target, 0, 0)
    assert found.classes is None


def test_numbers_that_are_the_names_of_classes_are_names(tmp_path: Path) -> None:
    found = open_eval_set(fill(tmp_path, "5", "7"), ("3", "5", "7"), console=QUIET)
    assert found.source.targets.tolist() == [1, 2]


def test_a_set_wrapped_in_the_name_of_a_split_is_unwrapped(tmp_path: Path) -> None:
    fill(tmp_path / "mixed_same" / "val", *NAMES)
    assert len(open_eval_set(tmp_path / "mixed_same", NAMES, console=QUIET).source) == 4


@pytest.mark.parametrize("beside", [".", "val"])
def test_real_labels_belong_to_the_images_in_the_order_of_their_names(tmp_path: Path, beside: str) -> None:
    for number, folder in ((3, "b"), (1, "c"), (2, "a")):
        (tmp_path / beside / folder).mkdir(parents=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / beside / folder / f"ILSVRC2012_val_{number:08d}.png")
    (tmp_path / "real.json").write_text("[[3], [2, 1], []]")
    found = open_eval_set(tmp_path / "real.json", NAMES, console=QUIET)
    assert found.label_sets == (frozenset({3}), frozenset({1, 2}), frozenset())
    assert found.source.targets.tolist() == [3, 1, 0]
    assert [found.source.read(index).getpixel((0, 0))[0] for index in range(3)] == [1, 2, 3]  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[0]], "has labels of 1 images, but there are 2"),
        ([[0], [4]], "has labels up to 4, but training has 4 classes"),
        ([[], []], "has no labels"),
        ([[0], [-1]], "entry 1 is no list of labels"),
        ([[0], [True]], "entry 1 is no list of labels"),
        ({"a": 1}, "is not a list of label lists"),
    ],
)
def test_real_labels_that_do_not_fit_are_refused(tmp_path: Path, content: object, message: str) -> None:
    fill(tmp_path, "a", "b")
    (tmp_path / "real.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        open_eval_set(tmp_path / "real.json", NAMES, console=QUIET)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("[[1],")
    with pytest.raises(UserError, match="is not JSON"):
        open_eval_set(tmp_path / "real.json", NAMES, console=QUIET)
