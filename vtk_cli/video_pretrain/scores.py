"""What answers to videos are worth: top-1, top-5, every class, what is taken for what. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """A score of each class for each of n videos.

    Args:
        indices: (n,) ascending: which videos of the list these are; those that could not be decoded are missing.
        targets: (n,) their labels.
        scores: (n, K), the larger the likelier.
    """

    indices: Ints
    targets: Ints
    scores: Floats

    @property
    def n(self) -> int:
        """How many videos there are."""
        return len(self.targets)

    @property
    def classes(self) -> int:
        """K."""
        return int(self.scores.shape[1])

    @cached_property
    def predictions(self) -> Ints:
        """(n,) the class with the largest score."""
        return np.asarray(self.scores.argmax(axis=1), np.int64)

    @property
    def top1(self) -> float:
        """The share of right answers, in [0, 1]; NaN of no video."""
        return float((self.predictions == self.targets).mean()) if self.n else float("nan")

    @property
    def top5(self) -> float:
        """The share of videos whose label is among the five best answers; of fewer classes it is 1."""
        best = np.argsort(-self.scores, axis=1, kind="stable")[:, :5]
        return float((best == self.targets[:, None]).any(axis=1).mean()) if self.n else float("nan")

    @cached_property
    def confusion(self) -> Ints:
        """(K, K) how often the row's class was taken for the column's."""
        pairs = np.bincount(self.targets * self.classes + self.predictions, minlength=self.classes**2)
        return pairs.reshape(self.classes, self.classes)

    @cached_property
    def per_class(self) -> Floats:
        """(K,) the share of each class's videos that were answered right; NaN without videos."""
        counts = self.confusion.sum(axis=1)
        shares: Floats = np.divide(np.diag(self.confusion), counts, out=np.full(self.classes, np.nan), where=counts > 0)
        return shares

    def scalars(self) -> dict[str, float]:
        """The numbers for a row of metrics, in [0, 1]."""
        return {"top1": self.top1, "top5": self.top5}
