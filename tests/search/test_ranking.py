"""Rank statistics against closed forms, SciPy and brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from vtk_cli.errors import UserError
from vtk_cli.search import ranking
from vtk_cli.search.ranking import (
    Estimate,
    agreement,
    difference_of,
    kendall_tau,
    mean_of,
    spearman_rho,
    top_overlap,
    top_regret,
)

RISING = np.arange(12.0)


def _pairs_tau(first, second):
    """tau-b by its definition."""
    concordant = ties_first = ties_second = pairs = 0
    for i, j in combinations(range(len(first)), 2):
        pairs += 1
        concordant += np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])
        ties_first += first[i] == first[j]
        ties_second += second[i] == second[j]
    return concordant / np.sqrt((pairs - ties_first) * (pairs - ties_second))


@pytest.mark.parametrize("correlation", [kendall_tau, spearman_rho])
def test_the_same_order_is_1_and_the_reversed_one_minus_1(correlation) -> None:
    assert correlation(RISING, np.exp(RISING)) == pytest.approx(1.0)
    assert correlation(RISING, -(RISING**3)) == pytest.approx(-1.0)


def test_four_with_one_swap_of_neighbours_have_a_tau_of_two_thirds() -> None:
    assert kendall_tau(np.array([1.0, 3.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("count", [3, 7, 40, 128, 129, 300])
def test_tau_and_rho_with_ties_are_those_of_their_definitions_and_of_scipy(count) -> None:
    """Below and above the number up to which all pairs are compared."""
    rng = np.random.default_rng(count)
    first = rng.integers(0, 8, count).astype(float)
    second = first + rng.integers(-4, 5, count)
    assert kendall_tau(first, second) == pytest.approx(_pairs_tau(first, second))
    assert kendall_tau(first, second) == pytest.approx(scipy.stats.kendalltau(first, second).statistic)
    assert spearman_rho(first, second) == pytest.approx(scipy.stats.spearmanr(first, second).statistic)


@pytest.mark.parametrize("correlation", [kendall_tau, spearman_rho])
@pytest.mark.parametrize("count", [5, 200])
def test_with_a_constant_the_correlation_is_undefined_and_not_0(correlation, count) -> None:
    other = np.arange(float(count))
    assert correlation(np.zeros(count), other) is None
    assert correlation(other, np.ones(count)) is None
    assert mean_of(correlation, np.zeros(count), other) == Estimate(None)


@pytest.mark.parametrize("correlation", [kendall_tau, spearman_rho])
def test_correlations_see_ranks_alone_infinite_scores_included(correlation) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 30))
    first[4], first[9] = np.inf, -np.inf
    as_ranks = scipy.stats.rankdata(first)
    assert correlation(first, second) == correlation(as_ranks, np.exp(second))
    assert correlation(first, second) == pytest.approx(correlation(second, first))


def test_overlap_is_the_part_of_the_best_that_is_found() -> None:
    assert top_overlap(RISING, RISING, 3) == 1.0
    assert top_overlap(-RISING, RISING, 3) == 0.0
    scores = RISING.copy()
    scores[11] = -1.0  # the best is missed, the fourth is taken in its place
    assert top_overlap(scores, RISING, 3) == pytest.approx(2 / 3)


def test_regret_is_what_the_best_found_lacks() -> None:
    assert top_regret(RISING, RISING, 1) == 0.0
    assert top_regret(-RISING, RISING, 1) == 11.0
    assert top_regret(-RISING, RISING, 4) == 8.0
    assert top_regret(-RISING, RISING, 12) == 0.0


def test_a_score_gets_no_credit_for_what_it_does_not_tell_apart() -> None:
    """However the architectures are ordered."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.permutation(RISING)
        assert top_overlap(np.zeros(12), truth, 3) == 0.0
        assert top_regret(np.zeros(12), truth, 3) == 9.0


def test_an_interval_holds_its_value_narrows_with_architectures_and_repeats() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (16, 64, 256):
        truth = rng.normal(size=count)
        estimate = mean_of(kendall_tau, truth + rng.normal(size=count), truth, draws=200)
        assert estimate.low < estimate.value < estimate.high
        widths.append(estimate.high - estimate.low)
    assert widths == sorted(widths, reverse=True)
    truth = rng.normal(size=32)
    scores = truth + rng.normal(size=32)
    assert mean_of(kendall_tau, scores, truth, draws=50) == mean_of(kendall_tau, scores, truth, draws=50)
    assert mean_of(kendall_tau, scores, truth, draws=50) != mean_of(kendall_tau, scores, truth, draws=50, seed=1)


def test_intervals_cover_the_true_rho_about_as_often_as_they_say() -> None:
    """Of 80 samples of a normal pair with Pearson's 0.6, whose Spearman's rho is 6/pi asin(0.3)."""
    rng, true, hits = np.random.default_rng(1), 6.0 / np.pi * np.arcsin(0.3), 0
    for number in range(80):
        first = rng.normal(size=60)
        second = 0.6 * first + 0.8 * rng.normal(size=60)
        estimate = mean_of(spearman_rho, first, second, draws=100, seed=number)
        hits += estimate.low <= true <= estimate.high
    assert 0.85 <= hits / 80 <= 1.0


def test_over_supernets_the_mean_is_reported_and_they_share_their_draws() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=40)
    scores = truth + rng.normal(size=(3, 40))
    together = mean_of(kendall_tau, scores, truth, draws=100)
    alone = [mean_of(kendall_tau, each, truth, draws=100) for each in scores]
    assert together.value == pytest.approx(np.mean([each.value for each in alone]))
    same = mean_of(kendall_tau, np.stack([scores[0]] * 3), truth, draws=100)
    assert (same.value, same.low, same.high) == pytest.approx((alone[0].value, alone[0].low, alone[0].high))


def test_a_difference_is_paired() -> None:
    """Of a score with itself it is 0 without any width; of good and bad it is clear of 0."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=64)
    good, bad = truth + 0.3 * rng.normal(size=(3, 64)), truth + 5.0 * rng.normal(size=64)
    assert difference_of(kendall_tau, good, good, truth, draws=50) == Estimate(0.0, 0.0, 0.0)
    better = difference_of(kendall_tau, good, bad, truth, draws=200)
    values = [mean_of(kendall_tau, scores, truth, draws=1).value for scores in (good, bad)]
    assert better.value == pytest.approx(values[0] - values[1])
    assert 0.0 < better.low < better.value < better.high
    worse = difference_of(kendall_tau, bad, good, truth, draws=200)
    assert (worse.low, worse.high) == pytest.approx((-better.high, -better.low))
    assert difference_of(kendall_tau, good, np.ones(64), truth) == Estimate(None)


def test_an_agreement_gathers_the_statistics() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=45)
    scores = truth + rng.normal(size=(2, 45))
    found = agreement(scores, truth, draws=30)
    assert (found.architectures, found.top, found.regret_of) == (45, 5, 10)
    assert found.tau == mean_of(kendall_tau, scores, truth, draws=30)
    assert found.spearman == mean_of(spearman_rho, scores, truth, draws=30)
    assert found.overlap == pytest.approx(np.mean([top_overlap(each, truth, 5) for each in scores]))
    assert found.regret == pytest.approx(np.mean([top_regret(each, truth, 10) for each in scores]))
    assert agreement(truth[:4], truth[:4], draws=5).regret_of == 4


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(UserError, match="2 architectures cannot be ranked; give at least 3"):
        agreement(np.ones(2), np.ones(2))
    with pytest.raises(UserError, match=r"the score of architecture 1 \(from 0\) is not a number"):
        agreement(np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]]), RISING[:3])
    with pytest.raises(UserError, match=r"the accuracy of architecture 2"):
        mean_of(kendall_tau, RISING[:3], np.array([1.0, 2.0, np.nan]))
    with pytest.raises(ValueError, match="3 scores for 4 architectures"):
        agreement(RISING[:3], RISING[:4])


def test_draws_in_which_a_correlation_is_undefined_are_left_out() -> None:
    """Of three architectures one draw in nine or so holds one of them alone."""
    estimate = mean_of(kendall_tau, RISING[:3], RISING[:3], draws=100)
    assert estimate == Estimate(1.0, 1.0, 1.0)
    assert ranking.FEWEST == 3
