from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from vtk_cli.reports.detection_curves import PrecisionCurve, draw_confusion, draw_precision_recall

pytestmark = pytest.mark.filterwarnings("error")
RECALLS = np.linspace(0, 1, 101)


def texts(svg: Path) -> list[str]:
    """What is written in a picture: matplotlib notes every text in a comment."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"))


def curve(name: str, level: float) -> PrecisionCurve:
    return PrecisionCurve(name, np.full(101, level))


def test_each_curve_is_named_with_the_area_below_it(tmp_path):
    classes = [curve("cat", 0.25), curve("dog", 0.75), curve("none", float("nan"))]
    written = texts(draw_precision_recall(tmp_path / "p", RECALLS, [curve("mean", 0.5)], classes, title="t").svg)
    assert {"mean  0.500", "cat  0.250", "dog  0.750"} <= set(written)
    assert not any("none" in text for text in written)


def test_of_many_classes_the_best_and_the_worst_are_named(tmp_path):
    classes = [curve(f"c{n}", n / 40) for n in range(40)]
    written = texts(draw_precision_recall(tmp_path / "p", RECALLS, [curve("mean", 0.5)], classes, title="t").svg)
    named = [text.split()[0] for text in written if text.startswith("c")]
    assert named == ["c39", "c38", "c37", "c36", "c3", "c2", "c1", "c0"]


def test_nothing_measured_can_be_drawn(tmp_path):
    draw_precision_recall(tmp_path / "p", RECALLS, [curve("mean", float("nan"))], [], title="t")
    with pytest.raises(ValueError, match="0 mean curves"):
        draw_precision_recall(tmp_path / "p", RECALLS, [], [], title="t")


def test_counts_stand_in_rows_of_what_is_there(tmp_path):
    counts = np.array([[51, 2, 3], [4, 65, 6], [7, 8, 0]])
    picture = draw_confusion(tmp_path / "c", counts, ["cat", "dog"], title="t", subtitle="s")
    written = texts(picture.svg)
    assert [text for text in written if text.isdigit()] == ["51", "2", "3", "4", "65", "6", "7", "8"]
    assert [text for text in written if text in {"cat", "dog", "background"}] == ["cat", "dog", "background"] * 2


@pytest.mark.parametrize("classes", [1, 26, 90])
def test_few_and_many_classes_can_be_drawn(tmp_path, classes):
    counts = np.ones((classes + 1, classes + 1), np.int64)
    written = texts(draw_confusion(tmp_path / "c", counts, [f"n{k}" for k in range(classes)], title="t").svg)
    assert written.count("n0") == (2 if classes <= 80 else 0)
    assert written.count("1") == (4 if classes == 1 else 0)
    draw_confusion(tmp_path / "zero", 0 * counts, [f"n{k}" for k in range(classes)], title="t")
