from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from vtk_cli.errors import UserError
from vtk_cli.similarity.ensembles import (
    error_reduction,
    pick_ensemble,
    probabilities,
    study_ensembles,
    suggest_teacher,
)
from vtk_cli.similarity.sat import Floats

LABELS = np.array([0, 0, 1, 1])


def sure(classes: list[int], confidence: float = 0.9) -> list[list[float]]:
    """Two-class probabilities that name `classes`."""
    return [[confidence, 1 - confidence] if c == 0 else [1 - confidence, confidence] for c in classes]


def random_study(networks: int, images: int = 40, seed: int = 0) -> tuple[Floats, Floats, np.ndarray]:
    random = np.random.default_rng(seed)
    score = random.uniform(1.0, 4.0, (networks, networks))
    chances = probabilities(random.normal(size=(networks, images, 5)) * 2)
    return (score + score.T) / 2, chances, random.integers(0, 5, images)


def test_softmax_keeps_the_dtype_and_survives_large_logits() -> None:
    chances = probabilities(np.array([[[1000.0, 0.0], [0.0, 0.0]]], dtype=np.float32))
    assert chances.dtype == np.float32
    assert chances.tolist() == [[[1.0, 0.0], [0.5, 0.5]]]


def test_members_that_err_on_different_images_correct_each_other() -> None:
    chances = np.array([sure([1, 0, 1, 1], 0.8), sure([0, 1, 1, 1], 0.9), sure([0, 0, 0, 1], 0.7)])
    assert error_reduction(chances, LABELS, [0, 1, 2]) == 1.0


def test_an_ensemble_of_copies_gains_nothing() -> None:
    network = sure([0, 1, 1, 0])
    assert error_reduction(np.array([network] * 3), LABELS, [0, 1, 2]) == 0.0


def test_error_reduction_of_half_the_errors() -> None:
    # Members err on images {0, 1} and {1, 2}; the second is surer, so the mean errs on {1, 2} less image 0: half of 2
    # would be 1 error. Here the first is surer on 2 as well, and only image 1 is left: ERR = 1 - 1 / 2.
    first = [[0.1, 0.9], [0.1, 0.9], [0.05, 0.95], [0.1, 0.9]]
    second = [[0.95, 0.05], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]]
    assert error_reduction(np.array([first, second]), LABELS, [0, 1]) == 0.5


def test_a_confident_wrong_member_can_make_the_ensemble_worse() -> None:
    chances = np.array([sure([1, 1, 0, 0], 0.99), sure([0, 0, 1, 1], 0.6)])
    assert error_reduction(chances, LABELS, [0, 1]) == -1.0


def test_no_errors_leave_none_to_reduce() -> None:
    assert math.isnan(error_reduction(np.array([sure([0, 0, 1, 1])] * 2), LABELS, [0, 1]))


def test_the_study_equals_brute_force_over_all_subsets() -> None:
    score, chances, labels = random_study(6)
    studies = study_ensembles(score, chances, labels)
    assert [study.size for study in studies] == [2, 3, 4, 5]
    for study in studies:
        assert study.exhaustive
        assert [tuple(members) for members in study.members] == list(combinations(range(6), study.size))
        for members, mean_score, reduction in zip(study.members, study.mean_score, study.reduction, strict=True):
            pairs = [score[i, j] for i, j in combinations(members, 2)]
            assert mean_score == pytest.approx(sum(pairs) / len(pairs))
            wrong = [np.mean(chances[m].argmax(-1) != labels) for m in members]
            together = np.mean(sum(chances[m] for m in members).argmax(-1) != labels)
            assert reduction == pytest.approx(1 - together / np.mean(wrong))
            assert reduction == pytest.approx(error_reduction(chances, labels, members))


def test_sizes_beyond_the_networks_are_skipped() -> None:
    assert [study.size for study in study_ensembles(*random_study(3))] == [2, 3]


def test_a_thousand_different_subsets_are_drawn_where_more_exist() -> None:
    score, chances, labels = random_study(20, images=10)
    (study,) = study_ensembles(score, chances, labels, sizes=[4], seed=3)  # 4,845 subsets
    assert not study.exhaustive
    assert len({tuple(members) for members in study.members}) == 1000
    assert (np.diff(study.members, axis=1) > 0).all()
    drawn = np.bincount(study.members.ravel(), minlength=20)
    assert drawn.min() > 150  # 200 expected, standard deviation 11
    assert np.array_equal(study_ensembles(score, chances, labels, sizes=[4], seed=3)[0].members, study.members)


def test_networks_that_share_errors_and_scores_make_the_correlation_negative() -> None:
    """Two groups; inside a group everyone errs on the same images. Similar members therefore gain less."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    logits = random.normal(size=(8, 300, 3)) * 0.3 + 1.5 * np.eye(3)[labels]
    groups = np.repeat([0, 1], 4)
    logits += np.repeat(random.normal(size=(2, 300, 3)) * 1.5, 4, axis=0)
    score = np.where(groups[:, None] == groups[None], 4.0, 1.0)
    studies = study_ensembles(score, probabilities(logits), labels)
    assert all(study.spearman < -0.5 for study in studies)
    pairs = studies[0]
    assert pairs.reduction[pairs.mean_score == 4.0].max() < pairs.reduction[pairs.mean_score == 1.0].min()


def test_a_correlation_with_constant_scores_is_undefined() -> None:
    _, chances, labels = random_study(5)
    assert all(math.isnan(study.spearman) for study in study_ensembles(np.ones((5, 5)), chances, labels))


def test_subsets_without_any_error_are_left_out() -> None:
    chances = np.array([sure([0, 0, 1, 1]), sure([0, 0, 1, 1]), sure([1, 0, 1, 1])])
    (study,) = study_ensembles(np.ones((3, 3)), chances, LABELS, sizes=[2])
    assert [tuple(members) for members in study.members] == [(0, 2), (1, 2)]


def test_networks_without_any_error_leave_no_ensemble_to_study() -> None:
    (study,) = study_ensembles(np.ones((2, 2)), np.array([sure([0, 0, 1, 1])] * 2), LABELS, sizes=[2])
    assert len(study.members) == 0
    assert math.isnan(study.spearman)


def test_the_greedy_choice_starts_with_the_best_and_adds_the_least_similar() -> None:
    score = np.array([[4.6, 3.0, 1.0, 2.0], [3.0, 4.6, 3.5, 1.5], [1.0, 3.5, 4.6, 4.0], [2.0, 1.5, 4.0, 4.6]])
    accuracy = np.array([0.90, 0.91, 0.80, 0.70])
    assert pick_ensemble(score, accuracy, 2) == [1, 3]
    # To {1, 3}: network 0 has mean (3.0 + 2.0) / 2 = 2.5, network 2 has (3.5 + 4.0) / 2 = 3.75.
    assert pick_ensemble(score, accuracy, 3) == [1, 3, 0]


def test_of_equally_similar_candidates_the_more_accurate_is_chosen() -> None:
    assert pick_ensemble(np.ones((3, 3)), np.array([0.9, 0.7, 0.8]), 2) == [0, 2]


@pytest.mark.parametrize("size", [1, 4])
def test_an_impossible_ensemble_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"an ensemble of {size} out of 3 networks; give 2 to 3"):
        pick_ensemble(np.ones((3, 3)), np.ones(3), size)


def test_teachers_are_ranked_apart_for_the_same_and_for_other_families() -> None:
    score = np.array([[4.6, 3.0, 3.4, 2.0, 1.5], *np.zeros((4, 5))])
    ranking = suggest_teacher(["s", "a", "b", "c", "d"], score, ["CNN", "CNN", "CNN", "MLP", "ViT"], "s")
    assert ranking.same_family == [("b", 3.4), ("a", 3.0)]
    assert ranking.other_family == [("d", 1.5), ("c", 2.0)]
    assert "not a promise" in ranking.guidance


def test_an_unknown_student_is_refused() -> None:
    with pytest.raises(UserError, match="student 'z' is not among the networks; give one of a, b"):
        suggest_teacher(["a", "b"], np.ones((2, 2)), ["CNN", "CNN"], "z")
