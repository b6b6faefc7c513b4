from __future__ import annotations

import numpy as np
import pytest

from vtk_cli.models.accuracy import Evaluation, MultiLabelEvaluation
from vtk_cli.train.robustness import Examined, report_card


def answered(right: int, count: int) -> Evaluation:
    predictions = np.array([0] * right + [1] * (count - right))
    zeros = np.zeros(count)
    return Evaluation(np.arange(count), np.zeros(count, np.int64), predictions, zeros > 1, zeros, zeros, 2)


def test_a_set_is_scored_by_its_top_1() -> None:
    (score,) = report_card({"v2": Examined(answered(3, 4))})
    assert (score.name, score.measure, score.value, score.images) == ("v2", "top-1", 0.75, 4)


def test_real_is_scored_by_its_label_sets() -> None:
    (score,) = report_card({"real": Examined(answered(2, 4), [{0}, {1}, {1}, set()])})
    assert (score.measure, score.value, score.images) == ("ReaL", 2 / 3, 3)


def test_many_labels_are_scored_by_average_precision() -> None:
    found = MultiLabelEvaluation(np.arange(2), np.array([[True], [False]]), np.array([[0.0], [1.0]]))
    (score,) = report_card({"coco": Examined(found)})
    assert (score.measure, score.value) == ("mAP", 0.5)


@pytest.mark.parametrize(
    ("same", "rand"), [("mixed_same", "mixed_rand"), ("Mixed-Same", "Mixed-Rand"), ("bg/mixed_same", "bg/mixed_rand")]
)
def test_both_background_sets_give_the_gap(same: str, rand: str) -> None:
    scores = report_card(
        {rand: Examined(answered(1, 2)), "a": Examined(answered(1, 1)), same: Examined(answered(3, 4))}
    )
    assert [score.measure for score in scores] == ["top-1", "top-1", "top-1", "BG-Gap"]
    assert scores[-1].value == pytest.approx(0.25)
    assert scores[-1].images == 6


def test_one_background_set_gives_no_gap() -> None:
    assert len(report_card({"mixed_same": Examined(answered(1, 1)), "x/mixed_rand": Examined(answered(1, 1))})) == 2
