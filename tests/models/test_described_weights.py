"""Files that say what they hold: what goes in comes out, and other text is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vtk_cli.models.described_weights import classes_from_text, classes_to_text, save_described, some_names
from vtk_cli.models.names import file_metadata
from vtk_cli.models.weights import read_state_dict


def test_a_file_gives_back_its_tensors_and_what_it_says(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    turned = torch.arange(6.0).reshape(2, 3).T  # not contiguous, which safetensors alone would refuse
    save_described(path, {"w": turned.requires_grad_()}, {"kind": "a test"})
    assert torch.equal(read_state_dict(path)["w"], turned)
    assert file_metadata(path)["kind"] == "a test"


def test_classes_come_back_in_their_order():
    assert classes_from_text(classes_to_text(("zebra", "ant"), (24, 3))) == (("zebra", "ant"), (24, 3))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"),
        ("[]", "missing"),
        ('{"names": ["a"]}', "missing"),
        ('{"names": "ab", "category_ids": [1, 2]}', "a list of text"),
        ('{"names": [1], "category_ids": [1]}', "a list of text"),
        ('{"names": ["a"], "category_ids": ["1"]}', "whole numbers"),
        ('{"names": ["a", "b"], "category_ids": [1]}', "2 class names for 1"),
        ('{"names": [], "category_ids": []}', "0 class names"),
    ],
)
def test_other_text_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        classes_from_text(text)


def test_classes_of_another_number_are_refused():
    assert len(classes_from_text(classes_to_text(("a", "b"), (1, 2)), 2)[0]) == 2
    with pytest.raises(ValueError, match="2 class names and 2 category ids for 3 classes"):
        classes_from_text(classes_to_text(("a", "b"), (1, 2)), 3)


def test_of_many_names_the_first_are_shown():
    assert some_names(("a", "b")) == "2: a, b"
    assert some_names("abcdef") == "6: a, b, c, d, e, ..."


def test_whoever_may_read_other_files_may_read_weights(tmp_path: Path):
    save_described(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {})
    (tmp_path / "b.txt").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b.txt").stat().st_mode
