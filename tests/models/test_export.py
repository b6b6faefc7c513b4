"""Drafts of exported files, and how answers are compared."""

from __future__ import annotations

import math

import pytest
import torch

from vtk_cli.errors import JobError, UserError
from vtk_cli.models import export
from vtk_cli.models.export import difference, draft, read_back, require_onnx


def test_a_draft_comes_in_place_with_what_lies_beside_it(tmp_path):
    with draft(tmp_path / "new" / "model.onnx") as written:
        written.write_text("graph")
        written.with_name("model.onnx.data").write_text("weights")
        assert not (tmp_path / "new" / "model.onnx").exists()
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == {
        "model.onnx": "graph",
        "model.onnx.data": "weights",
    }


def test_a_draft_that_failed_leaves_nothing_and_what_was_there_stays(tmp_path):
    (tmp_path / "model.onnx").write_text("old")

    def broken_off() -> None:
        with draft(tmp_path / "model.onnx") as written:
            written.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        broken_off()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_the_difference_is_the_largest_of_all_and_nan_is_far():
    one = [torch.tensor([1.0, -4.0]), torch.tensor([2.0])]
    found = difference(one, [torch.tensor([1.5, -4.0]), torch.tensor([2.25])])
    assert (found.largest, found.scale, found.share) == (0.5, 4.0, 0.125)
    assert math.isinf(difference(one, [torch.tensor([math.nan, -4.0]), one[1]]).largest)


def test_what_cannot_be_read_back_is_named_by_where_it_was_to_lie(tmp_path):
    def read(path):
        raise RuntimeError("\n  torn\nmore")

    with pytest.raises(JobError, match=r"model\.onnx: what was written cannot be read back \(torn\)"):
        read_back(read, tmp_path / "draft", tmp_path / "model.onnx")


def test_missing_packages_are_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx, onnxscript, onnxruntime.*vtk-cli\[export\]"):
        require_onnx()
