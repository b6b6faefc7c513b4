"""An accuracy that is not biased by what was asked about: of images drawn at random and labelled to measure only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vtk_cli.adapt.ledger import MARKS, LabelRow, standing
from vtk_cli.errors import UserError

NORMAL_95 = 1.959963984540054
"""Within so many standard deviations lies 95 % of a normal distribution."""
_STREAM = 0x617564


@dataclass(frozen=True)
class AuditedAccuracy:
    """Images right, images judged, and the Wilson interval of the share that is right, 0 to 1."""

    right: int
    judged: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The share that is right; NaN of none."""
        return self.right / self.judged if self.judged else math.nan


def draw_audit(pool: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` images of a pool for the audit, whatever order it is in.

    Raises:
        UserError: fewer than two images would be left to adapt to.
    """
    if not 0 <= count <= len(pool) - 2:
        raise UserError(f"an audit of {count} of {len(pool)} images is out of range", "--audit", "leave at least 2")
    order = sorted(pool)
    drawn = np.random.default_rng([_STREAM, seed]).permutation(len(order))[:count]
    return tuple(sorted(order[index] for index in drawn.tolist()))


def audited_accuracy(rows: Iterable[LabelRow], audit: Sequence[str], predictions: Mapping[str, str]) -> AuditedAccuracy:
    """How many images of the audit are predicted as they were labelled; those without a class are not judged.

    Args:
        rows: of the ledger.
        audit: its images.
        predictions: class names by sample id.
    """
    said = standing(rows)
    classes = {name: said[name].label for name in audit if name in said and said[name].label not in MARKS}
    right = sum(predictions[name] == label for name, label in classes.items())
    return AuditedAccuracy(right, len(classes), *wilson_interval(right, len(classes)))


def has_levelled_off(accuracies: Sequence[AuditedAccuracy], rounds: int = 2) -> bool:
    """Whether further labels seem to bring nothing that the audit could see.

    So it is when each of the last `rounds` accuracies lies within the interval of the one before them all. An audit of
    few images has wide intervals and says so early: it is a suggestion.

    Args:
        accuracies: of the rounds, in order.
        rounds: at least 1.
    """
    if len(accuracies) <= rounds:
        return False
    first, *later = accuracies[-rounds - 1 :]
    return all(first.low <= one.accuracy <= first.high for one in later)


def wilson_interval(right: int, judged: int, deviations: float = NORMAL_95) -> tuple[float, float]:
    """The interval in which a share lies, of which `right` of `judged` were seen (Wilson, JASA 22, 1927).

    Returns:
        Its ends, 0 to 1; (0, 1) where nothing was judged.
    """
    if not judged:
        return 0.0, 1.0
    share, square = right / judged, deviations**2
    middle = (share + square / (2 * judged)) / (1 + square / judged)
    half = deviations / (1 + square / judged) * math.sqrt(share * (1 - share) / judged + square / (4 * judged**2))
    return max(0.0, middle - half), min(1.0, middle + half)
