from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtk_cli.engine.processes.gathered import merged
from vtk_cli.models.accuracy import (
    Evaluation,
    MultiLabelEvaluation,
    PointAnswers,
    accuracy_in_sets,
    average_precisions,
    backgrounds_gap,
    expected_calibration_error,
    most_confident_mistakes,
)
from vtk_cli.reports.confusion import most_confused


def evaluation(targets: list[int], predictions: list[int], classes: int = 3, **changes: object) -> Evaluation:
    count = len(targets)
    values = {
        "indices": np.arange(count),
        "targets": np.array(targets),
        "predictions": np.array(predictions),
        "in_top5": np.ones(count, np.bool_),
        "losses": np.linspace(0.1, 1.0, count),
        "confidences": np.linspace(0.4, 0.9, count),
        "classes": classes,
    }
    return Evaluation(**(values | changes))  # type: ignore[arg-type]


def test_accuracy_of_a_class_is_its_row_of_the_confusion_matrix() -> None:
    found = evaluation([0, 0, 0, 1, 1], [0, 0, 1, 1, 0])
    assert found.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert found.per_class[:2].tolist() == [2 / 3, 1 / 2]
    assert math.isnan(found.per_class[2])
    assert found.top1 == 3 / 5
    assert found.confusion.sum() == found.n


def test_a_calibrated_classifier_has_no_calibration_error() -> None:
    confidences = np.repeat([0.25, 0.75], 4)
    correct = np.array([1, 0, 0, 0, 1, 1, 1, 0], np.bool_)
    assert expected_calibration_error(confidences, correct) == 0.0


def test_a_classifier_that_is_sure_and_always_wrong_has_calibration_error_1() -> None:
    assert expected_calibration_error(np.ones(7), np.zeros(7, np.bool_)) == 1.0


def test_gaps_of_opposite_sign_cancel_within_a_bin_but_not_across_bins() -> None:
    correct = np.array([True, False])
    assert expected_calibration_error(np.array([0.51, 0.52]), correct, bins=2) == pytest.approx(0.03 / 2)
    assert expected_calibration_error(np.array([0.49, 0.52]), correct, bins=2) == pytest.approx((0.51 + 0.52) / 2)


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=60))
def test_calibration_error_equals_the_sum_over_bins(samples: list[tuple[float, bool]]) -> None:
    total = 0.0
    for m in range(1, 16):
        members = [(c, r) for c, r in samples if (m - 1) / 15 < c <= m / 15 or (m == 1 and c == 0.0)]
        if members:
            confidence = sum(c for c, _ in members) / len(members)
            accuracy = sum(r for _, r in members) / len(members)
            total += len(members) / len(samples) * abs(accuracy - confidence)
    confidences, correct = (np.array(column) for column in zip(*samples, strict=True))
    # A confidence on the border of two bins may be rounded into either.
    if np.abs(confidences * 15 - np.rint(confidences * 15)).min() > 1e-9:
        assert expected_calibration_error(confidences, correct) == pytest.approx(total, abs=1e-12)


def test_average_precision_is_the_mean_precision_at_each_hit() -> None:
    """Hits at ranks 1, 3 and 4: (1/1 + 2/3 + 3/4) / 3."""
    scores = np.array([[5.0], [4.0], [3.0], [2.0], [1.0]])
    targets = np.array([[1], [0], [1], [1], [0]], np.bool_)
    assert average_precisions(scores, targets)[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_a_class_that_no_sample_shows_counts_for_nothing() -> None:
    logits = np.array([[2.0, 0.0], [1.0, 5.0], [-1.0, 1.0]])
    targets = np.array([[1, 0], [1, 0], [0, 0]], np.bool_)
    found = MultiLabelEvaluation(np.arange(3), targets, logits)
    assert math.isnan(found.per_class[1])
    assert found.mean_ap == 1.0
    nothing = MultiLabelEvaluation(np.arange(3), np.zeros((3, 2), np.bool_), logits)
    assert math.isnan(nothing.mean_ap)


def test_binary_cross_entropy_of_no_opinion_is_log_2() -> None:
    found = MultiLabelEvaluation(np.arange(2), np.array([[1, 0], [0, 0]], np.bool_), np.zeros((2, 2)))
    assert found.bce == pytest.approx(math.log(2))
    sure = MultiLabelEvaluation(np.arange(1), np.array([[1]], np.bool_), np.array([[-1000.0]]))
    assert sure.bce == 1000.0


def test_an_answer_in_the_label_set_is_right_and_empty_sets_are_left_out() -> None:
    accuracy, count = accuracy_in_sets(np.array([1, 2, 0, 3]), [{1, 5}, {0}, set(), [3]])
    assert (accuracy, count) == (2 / 3, 3)
    assert math.isnan(accuracy_in_sets(np.array([1]), [set()])[0])


def test_label_sets_are_found_by_the_sample_also_where_one_could_not_be_read() -> None:
    found = evaluation([0, 0], [2, 1], indices=np.array([0, 2]))
    assert found.accuracy_in([{2}, {9}, {1}]) == (1.0, 2)


def test_backgrounds_gap_is_what_random_backgrounds_cost() -> None:
    assert backgrounds_gap(0.8, 0.7) == pytest.approx(0.1)


def answers(predicted: list[list[float]], points: list[list[float]], present: list[bool], **changes: object) -> object:
    return PointAnswers(np.array(predicted)[:, None], np.array(points)[:, None], np.array(present)[:, None], 20)


def test_click_error_is_a_distance_in_pixels_and_a_share_of_the_diagonal() -> None:
    found = answers([[0.5, 0.5], [0.0, 0.0]], [[0.8, 0.9], [0.0, 0.0]], [True, False])
    assert isinstance(found, PointAnswers)
    assert found.click_error_px == pytest.approx(0.5 * 20)
    assert found.click_error == pytest.approx(0.5 / 2**0.5)
    assert found.count == 1
    assert "pointing_hits" not in found.scalars()


def test_the_farthest_miss_is_the_whole_diagonal() -> None:
    found = answers([[0.0, 0.0]], [[1.0, 1.0]], [True])
    assert isinstance(found, PointAnswers)
    assert found.click_error == pytest.approx(1.0)


def test_without_clicks_there_is_no_click_error() -> None:
    found = answers([[0.0, 0.0]], [[0.5, 0.5]], [False])
    assert isinstance(found, PointAnswers)
    assert math.isnan(found.click_error)


def test_the_pointing_game_counts_points_inside_boxes_that_are_there() -> None:
    predicted = np.array([[[0.5, 0.5]], [[0.9, 0.5]], [[0.0, 0.0]], [[0.1, 1.2]]])
    boxes = np.array([[[0.4, 0.4, 0.6, 0.6]], [[0.4, 0.4, 0.6, 0.6]], [[0.0, 0.0, 0.0, 0.0]], [[-0.5, 0.5, 0.5, 1.5]]])
    found = PointAnswers(predicted, np.full((4, 1, 2), 0.5), np.zeros((4, 1), np.bool_), 10, boxes)
    assert found.pointing_hits == pytest.approx(2 / 3)
    assert found.scalars()["pointing_hits"] == found.pointing_hits


def test_mistakes_come_with_the_surest_first() -> None:
    found = evaluation([0, 1, 2, 0], [1, 1, 0, 1], confidences=np.array([0.5, 0.99, 0.8, 0.6]))
    assert most_confident_mistakes(found, 2).tolist() == [2, 3]
    assert most_confident_mistakes(evaluation([0], [0]), 2).tolist() == []


def test_the_most_confused_pairs_leave_out_right_answers() -> None:
    assert most_confused(np.array([[50, 2, 0], [3, 50, 0], [0, 1, 50]]), 2) == [(1, 0, 3), (0, 1, 2)]


def test_records_of_several_processes_are_put_in_the_order_of_the_samples() -> None:
    parts = [{"indices": np.array([0, 2]), "v": np.array([0.0, 0.2])}, {"indices": np.array([1]), "v": np.array([0.1])}]
    joined = merged(parts)
    assert joined["indices"].tolist() == [0, 1, 2]
    assert joined["v"].tolist() == [0.0, 0.1, 0.2]
