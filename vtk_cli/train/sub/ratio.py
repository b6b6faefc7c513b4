"""How much is dropped, and how that changes while training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vtk_cli.errors import UserError

_FLAG = "--sub-ratio"


@dataclass(frozen=True)
class SubRatio:
    """The share that is dropped, constant or changing linearly with the updates made.

    Args:
        start, end: in [0, 1).

    Raises:
        UserError: one is out of range.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (0 <= self.start < 1 and 0 <= self.end < 1):
            raise UserError("sub-ratio must be >= 0 and < 1", _FLAG, "0.5 is the published value")

    def at(self, progress: float) -> float:
        """The ratio when `progress`, in [0, 1], of the training is done."""
        return self.start + (self.end - self.start) * min(1.0, max(0.0, progress))


def parse_ratio(text: str | float) -> SubRatio:
    """`0.5`, or `0.25:0.75` for one that grows from the first value to the second.

    Raises:
        UserError: it is neither, or out of range.
    """
    first, colon, last = str(text).partition(":")
    try:
        start = float(first)
        return SubRatio(start, float(last) if colon else start)
    except ValueError:
        raise UserError(f"{text!r} is no ratio", _FLAG, "give a number as in 0.5, or two as in 0.25:0.75") from None


def kept_count(parts: int, ratio: float) -> int:
    """How many of `parts` tokens or blocks stay: `max(1, floor(parts * (1 - ratio)))`.

    The product is taken a little larger, so that 10 parts at ratio 0.9 leave one and not, by rounding, none.
    """
    return max(1, math.floor(parts * (1 - ratio) + 1e-6))
