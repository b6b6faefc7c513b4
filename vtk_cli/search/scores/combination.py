"""One score of one or two metrics: a weighted sum, or a sum of ranks."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from vtk_cli.errors import UserError, nearest
from vtk_cli.search.scores.settings import Measurement, ScoreSettings
from vtk_cli.search.scores.values import Metrics

METRICS: MappingProxyType[str, Measurement] = MappingProxyType(
    {"flatness": "noise", "loss": "clean", "accuracy": "clean", "angle": "angle"}
)
"""The metrics, and what has to be measured for each."""

PUBLISHED_GAMMA = MappingProxyType({("angle", "flatness"): 16.0})
"""Weights of the second metric that have been published (arXiv 2305.08611, released code); others are 1."""


@dataclass(frozen=True)
class Combination:
    """A score, the larger the better.

    Args:
        metrics: the names of one or more.
        weights: of each in the sum; of a loss it is below 0.
        combine: `sum`, weights times metrics; or `rank`, the sum of each one's mean rank among the architectures that
            are compared, in (0, 1], which needs no common scale and no weights but their signs.
    """

    metrics: tuple[str, ...]
    weights: tuple[float, ...]
    combine: Literal["sum", "rank"] = "sum"

    @property
    def needs(self) -> frozenset[Measurement]:
        """What has to be measured."""
        return frozenset(METRICS[name] for name in self.metrics)

    def scores(self, population: Sequence[Metrics]) -> list[float]:
        """The score of each architecture; -inf where a metric is not finite.

        Ranks are among all of `population`; equal ones share the mean of theirs.
        """
        terms = [
            [self._term(name, weight, one) for one in population]
            for name, weight in zip(self.metrics, self.weights, strict=True)
        ]
        if self.combine == "rank":
            broken = [any(term[at] == -math.inf for term in terms) for at in range(len(population))]
            terms = [_ranks(term) for term in terms]
            return [-math.inf if bad else sum(each) for bad, each in zip(broken, zip(*terms, strict=True), strict=True)]
        return [sum(each) for each in zip(*terms, strict=True)]

    @staticmethod
    def _term(name: str, weight: float, metrics: Metrics) -> float:
        value = weight * metrics[name]
        return value if math.isfinite(value) else -math.inf


def combination(
    score: str, settings: ScoreSettings, *, gamma: float | None = None, combine: Literal["sum", "rank"] = "sum"
) -> Combination:
    """The score that a user names: `flatness`, `loss`, `accuracy`, `angle`, or a sum of two such as `angle+flatness`.

    In a sum the angle counts in halves of a turn (theta / pi), and the flatness times beta = 1 / s_1, which is about
    one over the loss; the second metric counts gamma times (arXiv 2305.08611, released code):

        accuracy + gamma beta W,    theta / pi + gamma beta W,    theta / pi + gamma accuracy

    Args:
        score: what the user typed; `accuracy+flatness` and `flatness+accuracy` are the same.
        settings: for beta.
        gamma: weight of the second metric; None: 16 of the flatness beside the angle, else 1.
        combine: see `Combination`.

    Raises:
        UserError: there is no such metric, or one comes twice.
    """
    names = [name.strip() for name in score.split("+")]
    for name in names:
        if name not in METRICS:
            fix = nearest(name, METRICS) or f"there are {', '.join(METRICS)}, and sums of two"
            raise UserError(f"no score {name!r}", "--score", fix)
    if len(set(names)) < len(names) or len(names) > 2:
        raise UserError(f"{score} is no sum of two scores", "--score", "give e.g. angle+flatness")
    order = ("angle", "accuracy", "loss", "flatness")
    metrics = tuple(sorted(names, key=order.index))
    if len(metrics) == 1:
        return Combination(metrics, (-1.0 if metrics == ("loss",) else 1.0,), combine)
    second = PUBLISHED_GAMMA.get((metrics[0], metrics[1]), 1.0) if gamma is None else gamma
    unit = {"angle": 1 / math.pi, "accuracy": 1.0, "loss": -1.0, "flatness": 1 / settings.sigmas[0]}
    return Combination(metrics, (unit[metrics[0]], second * unit[metrics[1]]), combine)


def _ranks(values: Sequence[float]) -> list[float]:
    """Mean ranks over their number: 1 for the largest of distinct values."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + 1 + bisect_right(ordered, value)) / 2 / len(ordered) for value in values]
