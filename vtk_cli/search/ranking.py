"""How well scores rank architectures: Kendall's tau-b, Spearman's rho, what the best by score are worth; intervals.

Intervals are percentile bootstraps over the architectures (Efron, 1979): they say how much the figure would move had
other architectures of the space been drawn. Scores of several supernets are rows of one array; what is reported is
the mean over them, and the same architectures are drawn for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from vtk_cli.errors import UserError

Floats = NDArray[np.float64]

FEWEST = 3
"""Architectures that a correlation needs."""
TOP_FRACTION = 0.1
DRAWS = 1000
CONFIDENCE = 0.95

_ALL_PAIRS = 128
"""Architectures up to which comparing all pairs is faster than sorting."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; all None where it is undefined, as the correlation with a constant.

    Args:
        value: over all architectures.
        low, high: ends of the bootstrap interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Agreement:
    """How scores and true accuracies of the same architectures agree.

    Args:
        architectures: how many.
        tau: Kendall's tau-b, -1..1.
        spearman: Spearman's rho, -1..1.
        overlap: what part of the best tenth by truth is among the best tenth by score, 0..1.
        top: how many architectures a tenth is.
        regret: by how much the best of all is more accurate than the best of the `regret_of` best by score; 0 or more,
            in the unit of the accuracies.
        regret_of: how many of the best by score would be trained.
    """

    architectures: int
    tau: Estimate
    spearman: Estimate
    overlap: float
    top: int
    regret: float
    regret_of: int


def kendall_tau(scores: Floats, truth: Floats) -> float | None:
    """Kendall's tau-b of two lists of N figures, from -1 to 1; None where one of them is constant.

    Source: M. Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945.
    """
    first, second = rankdata(scores), rankdata(truth)  # differences of infinities would be no numbers
    if len(first) > _ALL_PAIRS:
        tau = float(kendalltau(first, second, method="asymptotic").statistic)
        return None if math.isnan(tau) else tau
    first, second = np.sign(first[:, None] - first), np.sign(second[:, None] - second)
    untied = float(np.count_nonzero(first)) * float(np.count_nonzero(second))
    return float(np.vdot(first, second)) / math.sqrt(untied) if untied else None


def spearman_rho(scores: Floats, truth: Floats) -> float | None:
    """Spearman's rank correlation of two lists of N figures, from -1 to 1; None where one of them is constant."""
    first, second = rankdata(scores), rankdata(truth)
    first, second = first - first.mean(), second - second.mean()
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / scale if scale else None


def best_by(scores: Floats, truth: Floats, count: int) -> NDArray[np.intp]:
    """Which `count` of N architectures are the best by score.

    Where scores are equal, the worse architectures are taken first: a score gets no credit for what it does not tell
    apart.
    """
    return np.lexsort((truth, -scores))[:count]


def top_overlap(scores: Floats, truth: Floats, count: int) -> float:
    """What part of the `count` best of N by truth is among the `count` best by score, 0..1; ties as in `best_by`."""
    chosen = set(best_by(scores, truth, count).tolist())
    best = set(np.lexsort((np.arange(len(truth)), -truth))[:count].tolist())
    return len(chosen & best) / count


def top_regret(scores: Floats, truth: Floats, count: int) -> float:
    """The best truth of N less the best among the `count` best by score; ties as in `best_by`."""
    return float(truth.max() - truth[best_by(scores, truth, count)].max())


def agreement(scores: Floats, truth: Floats, *, regret_of: int = 10, draws: int = DRAWS, seed: int = 0) -> Agreement:
    """How one score or more of the same kind agree with the truth.

    Args:
        scores: (N,) of N architectures, or (S, N) by S supernets; larger is better; may be infinite, not NaN.
        truth: (N,) accuracies.
        regret_of: how many of the best by score would be trained; at most N of them are.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: there are fewer than three architectures, or a figure is not a number.
    """
    scores, truth = _checked(scores, truth)
    count = len(truth)
    top, regret_of = max(1, math.ceil(TOP_FRACTION * count)), min(regret_of, count)
    return Agreement(
        count,
        mean_of(kendall_tau, scores, truth, draws=draws, seed=seed),
        mean_of(spearman_rho, scores, truth, draws=draws, seed=seed),
        float(np.mean([top_overlap(each, truth, top) for each in scores])),
        top,
        float(np.mean([top_regret(each, truth, regret_of) for each in scores])),
        regret_of,
    )


Correlation = Callable[[Floats, Floats], float | None]


def mean_of(correlation: Correlation, scores: Floats, truth: Floats, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """The mean of a correlation over supernets, with its interval.

    Args:
        correlation: `kendall_tau` or `spearman_rho`.
        scores: (N,) or (S, N).
        truth: (N,).
        draws: of the bootstrap.
        seed: of the bootstrap; the same draws the same architectures whatever the scores.

    Raises:
        UserError: as `agreement`.
    """
    scores, truth = _checked(scores, truth)

    def mean(chosen: NDArray[np.intp]) -> float | None:
        return _mean([correlation(each[chosen], truth[chosen]) for each in scores])

    return _bootstrap(mean, len(truth), draws, seed)


def difference_of(
    correlation: Correlation,
    first: Floats,
    second: Floats,
    truth: Floats,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """How much better one score agrees with the truth than another, over the same architectures and supernets.

    Args:
        correlation: `kendall_tau` or `spearman_rho`.
        first: (N,) or (S, N).
        second: (N,) or (R, N); the mean over its rows is subtracted from that over the rows of `first`.
        truth: (N,).
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: as `agreement`.
    """
    first, truth = _checked(first, truth)
    second, _ = _checked(second, truth)

    def difference(chosen: NDArray[np.intp]) -> float | None:
        means = [_mean([correlation(each[chosen], truth[chosen]) for each in scores]) for scores in (first, second)]
        return None if means[0] is None or means[1] is None else means[0] - means[1]

    return _bootstrap(difference, len(truth), draws, seed)


def _bootstrap(statistic: Callable[[NDArray[np.intp]], float | None], count: int, draws: int, seed: int) -> Estimate:
    """A statistic of all architectures, and the middle 95 % of what it is on architectures drawn with replacement.

    Draws on which it is undefined, such as one architecture many times, are left out.
    """
    value = statistic(np.arange(count))
    if value is None:
        return Estimate(None)
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(count, size=count)) for _ in range(draws)]
    defined = [each for each in drawn if each is not None]
    if not defined:
        return Estimate(value)
    low, high = np.quantile(defined, [(1.0 - CONFIDENCE) / 2.0, (1.0 + CONFIDENCE) / 2.0])
    return Estimate(value, float(low), float(high))


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if len(defined) == len(values) else None


def _checked(scores: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """Scores as (S, N) and truth as (N,), of at least three architectures and without NaN."""
    scores = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    truth = np.asarray(truth, dtype=np.float64)
    if scores.shape[1] != len(truth):
        raise ValueError(f"{scores.shape[1]} scores for {len(truth)} architectures")
    if len(truth) < FEWEST:
        raise UserError(f"{len(truth)} architectures cannot be ranked", fix=f"give at least {FEWEST}")
    for what, figures in (("score", scores), ("accuracy", truth)):
        bad = np.argwhere(np.isnan(figures))
        if len(bad):
            raise UserError(f"the {what} of architecture {bad[0][-1]} (from 0) is not a number")
    return scores, truth
