"""What architectures are judged by: the score that was asked for, and how it is measured. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vtk_cli.search.scores.combination import Combination
from vtk_cli.search.scores.settings import Measurement, ScoreSettings
from vtk_cli.search.scores.values import metrics_of


@dataclass(frozen=True)
class Judgement:
    """A score.

    Args:
        name: as users type it: `angle+flatness`.
        combination: of what is measured.
        settings: of the measurements.
        images: of the scoring half to measure on; None: all.
    """

    name: str
    combination: Combination
    settings: ScoreSettings
    images: int | None = None

    @property
    def needs(self) -> frozenset[Measurement]:
        """What has to be measured."""
        return self.combination.needs

    def metrics(self, measured: Mapping[str, Mapping[str, object]]) -> dict[str, float]:
        """`flatness`, `loss`, `accuracy`, `angle`: those that were measured."""
        return metrics_of(measured, self.settings)

    def scores(self, population: Sequence[Mapping[str, float]]) -> list[float]:
        """Of architectures with these metrics, among one another."""
        return self.combination.scores(population)
