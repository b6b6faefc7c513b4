"""Pass bands, and which harmonics of an axis, a frame or a clip they keep.

A frequency is |k| / N cycles per sample for the harmonic |k| = 0 .. N // 2 of an axis of length N. Which harmonics lie
below a cut-off is decided in integers: the rounded quotient k / N of a floating-point comparison falls on the wrong
side for lengths such as 70, 110 and 140 at a cut-off of 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shape = Literal["box", "radial"]
Harmonics = NDArray[np.bool_]

_SLACK = 1e-9
"""A harmonic this close to the cut-off counts as on it, hence outside: cut-offs are decimals, not exact binaries."""


@dataclass(frozen=True)
class PassBand:
    """The frequencies that stay: start <= f < stop, in cycles per sample. Made by `high`, `low` and `band`."""

    start: float
    """0 where the band begins with the mean."""
    stop: float
    """1, above every frequency there is, where the band has no upper end."""

    def __post_init__(self) -> None:
        """Refuse an empty band."""
        if not 0 <= self.start < self.stop <= 1:
            raise ValueError(f"pass band: expected 0 <= start < stop <= 1, got {self.start} and {self.stop}")


def high(cutoff: float) -> PassBand:
    """Everything from `cutoff` on, 0 < cutoff <= 0.5 cycles per sample: the mean never stays.

    Raises:
        ValueError: `cutoff` is out of range.
    """
    return PassBand(_checked("cutoff", cutoff), 1.0)


def low(cutoff: float) -> PassBand:
    """Everything strictly below `cutoff`, 0 < cutoff <= 0.5 cycles per sample: the mean always stays.

    Raises:
        ValueError: `cutoff` is out of range.
    """
    return PassBand(0.0, _checked("cutoff", cutoff))


def band(start: float, stop: float) -> PassBand:
    """What is below `stop` and not below `start`, 0 < start < stop <= 0.5 cycles per sample.

    Raises:
        ValueError: an end is out of range, or `start` is not below `stop`.
    """
    if not _checked("start", start) < _checked("stop", stop):
        raise ValueError(f"start: expected less than stop, got {start} and {stop}")
    return PassBand(start, stop)


def _checked(name: str, cutoff: float) -> float:
    if not 0 < cutoff <= 0.5:
        raise ValueError(f"{name}: the cut-off must be in (0, 0.5] cycles/sample, got {cutoff}")
    return float(cutoff)


def highest(cutoff: float, length: int) -> int:
    """The highest harmonic strictly below `cutoff` on an axis of `length`: -1 if none is, length // 2 if all are."""
    return min(math.ceil(cutoff * length - _SLACK) - 1, length // 2)


def _below(cutoff: float, length: int) -> Harmonics:
    """(length // 2 + 1,) whether each harmonic of an axis is below the cut-off."""
    return np.arange(length // 2 + 1) <= highest(cutoff, length)


def _frame_below(cutoff: float, height: int, width: int, shape: Shape) -> Harmonics:
    """(height // 2 + 1, width // 2 + 1): |f_h| < cutoff and |f_w| < cutoff, or hypot(f_h, f_w) < cutoff (radial)."""
    box = np.logical_and.outer(_below(cutoff, height), _below(cutoff, width))
    if shape == "box" or cutoff >= 1:
        return box
    radius = np.hypot.outer(np.arange(height // 2 + 1) / height, np.arange(width // 2 + 1) / width)
    # Along an axis this is the rule of `highest`, so a disc never leaves its box; elsewhere the slack is as small.
    inside: Harmonics = radius * max(height, width) < cutoff * max(height, width) - _SLACK
    return box & inside


@dataclass(frozen=True)
class Filter:
    """What `frequency_filter` is asked for; `passes` is its mask."""

    time: PassBand | None
    space: PassBand | None
    shape: Shape
    joint: bool

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions of a clip (B, C, T, H, W) that are filtered."""
        return ((2,) if self.time else ()) + ((3, 4) if self.space else ())

    def passes(self, frames: int, height: int, width: int) -> Harmonics:
        """Which harmonics stay, one axis for each of `dims`: N // 2 + 1 entries for a length of N."""
        if self.joint and self.time and self.space:
            inner, outer = (
                np.logical_and.outer(_below(in_time, frames), _frame_below(in_space, height, width, self.shape))
                for in_time, in_space in ((self.time.start, self.space.start), (self.time.stop, self.space.stop))
            )
            return outer & ~inner
        in_time = self.time_passes(frames) if self.time else np.ones((), dtype=np.bool_)
        in_space = self.space_passes(height, width) if self.space else np.ones((), dtype=np.bool_)
        stays: Harmonics = np.logical_and.outer(in_time, in_space)
        return stays

    def time_passes(self, frames: int) -> Harmonics:
        """(T // 2 + 1,) which temporal harmonics stay, `joint` aside."""
        if self.time is None:
            return np.ones(frames // 2 + 1, dtype=np.bool_)
        return _below(self.time.stop, frames) & ~_below(self.time.start, frames)

    def space_passes(self, height: int, width: int) -> Harmonics:
        """(H // 2 + 1, W // 2 + 1) which spatial harmonics stay, `joint` aside."""
        if self.space is None:
            return np.ones((height // 2 + 1, width // 2 + 1), dtype=np.bool_)
        inner, outer = (
            _frame_below(cutoff, height, width, self.shape) for cutoff in (self.space.start, self.space.stop)
        )
        return outer & ~inner
