from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from vtk_cli.reports.confusion import draw_confusion
from vtk_cli.reports.training import Row, draw_training
from vtk_cli.train.curves import PANELS, draw_class_bars

pytestmark = pytest.mark.filterwarnings("error")


def texts(svg: Path) -> list[str]:
    """What is written in a picture, in drawing order: matplotlib notes every text in a comment."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"))


def rows(count: int, every: int = 1, **changes: float) -> list[Row]:
    made: list[Row] = []
    for epoch in range(1, count + 1):
        row: dict[str, float | None] = {"epoch": epoch, "step": 10 * epoch, "loss": 1.0 / epoch, "lr": 0.1}
        if epoch % every == 0:
            row |= {"top1": 0.5 + 0.1 * epoch / count, "nll": 1.5 / epoch, **changes}
        made.append(row)
    return made


def test_every_quantity_that_was_measured_has_its_panel(tmp_path: Path) -> None:
    written = texts(draw_training(tmp_path / "t", rows(5), PANELS, title="a run", subtitle="5 epochs").svg)
    assert {"a run", "5 epochs", "top-1 accuracy on validation, %", "learning rate", "epoch"} <= set(written)
    assert not any("click" in text or "precision" in text for text in written)
    more = texts(draw_training(tmp_path / "m", rows(5, click_error=0.1, map=0.3), PANELS, title="t").svg)
    assert {"click error, % of the diagonal", "mean average precision on validation, %"} <= set(more)


def test_the_best_value_is_named(tmp_path: Path) -> None:
    written = texts(draw_training(tmp_path / "t", rows(5, ema_top1=0.71, click_error=0.25), PANELS, title="t").svg)
    assert {"weights: 60.0 at best", "averaged weights: 71.0 at best", "weights: 25.0 at best"} <= set(written)


def test_the_lowest_click_error_is_the_best(tmp_path: Path) -> None:
    some = [{**row, "click_error": value} for row, value in zip(rows(3), (0.3, 0.1, 0.2), strict=True)]
    assert "weights: 10.0 at best" in texts(draw_training(tmp_path / "t", some, PANELS, title="t").svg)


def test_gaps_single_epochs_and_rows_of_updates_are_drawn(tmp_path: Path) -> None:
    broken = [
        *rows(4, every=2),
        {"step": 45, "loss": 3.0, "lr": 0.1},
        {"epoch": 5, "step": 50, "loss": None, "lr": 0.0},
    ]
    draw_training(tmp_path / "gap", broken, PANELS, title="t")
    written = texts(draw_training(tmp_path / "one", rows(1), PANELS, title="t").svg)
    assert "1" in written
    assert "0.96" not in written


def test_nothing_is_drawn_before_the_first_epoch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no epoch has ended"):
        draw_training(tmp_path / "t", [{"step": 1, "loss": 0.1, "lr": 0.1}], PANELS, title="t")


def test_classes_are_sorted_from_the_worst(tmp_path: Path) -> None:
    values = np.array([0.9, np.nan, 0.25, 0.5])
    written = texts(draw_class_bars(tmp_path / "b", values, ["cat", "unseen", "dog", "cow"], title="t").svg)
    assert [text for text in written if text in {"cat", "dog", "cow", "unseen"}] == ["dog", "cow", "cat"]
    assert {"25.0", "50.0", "90.0", "mean 55.0"} <= set(written)


def test_of_many_classes_the_ends_are_shown(tmp_path: Path) -> None:
    names = [f"c{index}" for index in range(100)]
    written = texts(draw_class_bars(tmp_path / "b", np.linspace(0, 1, 100), names, title="t", subtitle="s").svg)
    assert [text for text in written if text in names] == names[:20] + names[80:]
    assert "s · the 20 lowest and the 20 highest of 100 classes" in written


def test_classes_without_values_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no class has a value"):
        draw_class_bars(tmp_path / "b", np.array([np.nan]), ["a"], title="t")


def test_names_are_not_read_as_formulas(tmp_path: Path) -> None:
    names = ["$5^$", r"$\frac$"]
    written = texts(draw_confusion(tmp_path / "c", np.eye(2, dtype=np.int64), names, title="$x^$").svg)
    assert {"$5^$", "$x^$"} <= {text.replace("\\", "") for text in written}
    draw_class_bars(tmp_path / "b", np.array([0.5, 1.0]), names, title="$x^$")
