from __future__ import annotations

import pytest

from vtk_cli.adapt.outcome import show_standing
from vtk_cli.console import Console


def test_classes_that_are_not_named_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"cup": 1} | {f"class {number}": 0 for number in range(9)}
    summary = {
        "run": "r",
        "phase": "adapted",
        "round": 1,
        "rounds": 2,
        "recipe": "sequential",
        "strategy": "loss",
        "budget": {"total": 4, "used": 1, "pending": 0},
        "pool": {"images": 9, "unlabelled": 8},
        "metrics": [],
        "labels_by_class": counts,
        "levelled_off": False,
        "next": "vtk adapt query r",
    }
    show_standing(summary, Console())
    said = capsys.readouterr().err
    assert "9 classes have no label of the target: class 0" in said
    assert "..." in said
