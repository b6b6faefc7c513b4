"""The picture of a confusion matrix."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from vtk_cli.reports.confusion import draw_confusion

pytestmark = pytest.mark.filterwarnings("error")


def texts(svg: Path) -> list[str]:
    """What is written in a picture, in drawing order: matplotlib notes every text in a comment."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"))


def test_a_row_of_the_confusion_adds_up_to_its_class(tmp_path: Path) -> None:
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    written = texts(draw_confusion(tmp_path / "c", confusion, ["a", "b", "c"], title="t").svg)
    assert [text for text in written if text in {"75", "25", "100"}] == ["75", "25", "100"]
    assert "0.0" not in written


def test_of_many_classes_those_that_are_confused_are_shown(tmp_path: Path) -> None:
    confusion = np.diag(np.full(50, 9))
    confusion[40, 45] = confusion[3, 41] = 2
    names = [f"n{index}" for index in range(50)]
    written = texts(draw_confusion(tmp_path / "c", confusion, names, title="t").svg)
    assert {"n3", "n40", "n41", "n45"} <= set(written)
    assert "the 24 of 50 classes that are confused most · % of the row" in written
