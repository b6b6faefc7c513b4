from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from vtk_cli.reports.curves import Curve, Points, draw_curves, draw_points

pytestmark = pytest.mark.filterwarnings("error")


def texts(svg: Path) -> list[str]:
    return re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"))


X = np.array([1.0, 5.0, 10.0, 50.0])


def test_several_curves_are_named_in_a_legend(tmp_path: Path) -> None:
    curves = [Curve(name, X, np.random.default_rng(0).normal(size=(4, 3))) for name in ("ours", "theirs")]
    picture = draw_curves(tmp_path / "c", curves, title="t", x_label="steps", y_label="SAT", log_x=True, target=0.5)
    written = texts(picture.svg)
    assert {"ours", "theirs", "target", "steps", "SAT"} <= set(written)
    assert [text for text in written if text in {"1", "5", "10", "50"}] == ["1", "5", "10", "50"]


def test_one_curve_needs_no_legend(tmp_path: Path) -> None:
    picture = draw_curves(tmp_path / "c", [Curve("only", X, X)], title="t", x_label="x", y_label="y", subtitle="s")
    written = texts(picture.svg)
    assert "only" not in written
    assert "s · y" in written


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    y = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, 3.0], [np.nan, 4.0]])
    draw_curves(tmp_path / "c", [Curve("a", X, y)], title="t", x_label="x", y_label="y")


@pytest.mark.parametrize("count", [0, 11])
def test_curves_that_could_not_be_told_apart_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match="draw 1 to 10"):
        draw_curves(tmp_path / "c", [Curve("a", X, X)] * count, title="t", x_label="x", y_label="y")


def test_every_row_shows_its_mean(tmp_path: Path) -> None:
    rows = [Points("SAT", np.array([0.99, 1.0, 0.98]), ours=True), Points("agreement", np.array([0.6, 0.5]))]
    written = texts(draw_points(tmp_path / "p", rows, title="t", x_label="ROC-AUC", target=0.95).svg)
    assert "0.990" in written
    assert "0.550" in written
    assert written.index("SAT") < written.index("agreement")
    assert "target" in written


def test_digits_follow_the_spread(tmp_path: Path) -> None:
    written = texts(draw_points(tmp_path / "p", [Points("a", np.array([1000.0, 3000.0]))], title="t", x_label="ms").svg)
    assert "2000" in written


def test_one_row_with_one_seed_can_be_drawn(tmp_path: Path) -> None:
    draw_points(tmp_path / "p", [Points("a", np.array([3.0]))], title="t", x_label="x")


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        draw_points(tmp_path / "p", [], title="t", x_label="x")
