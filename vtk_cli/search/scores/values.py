"""From measured losses and angles to the metrics of an architecture; arithmetic alone, so it can be redone offline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vtk_cli.search.scores.settings import ScoreSettings

EPSILON = 1e-5
"""Keeps the flatness finite (arXiv 2305.08611, released code)."""

Metrics = Mapping[str, float]
"""`flatness` W, `loss`, `accuracy` in 0..1, `angle` in radians; those that were measured. A loss may be infinite."""


def slopes(losses: Sequence[float], sigmas: Sequence[float], *, at_rest: float = 0.0) -> list[float]:
    """|L_1 - L_0| / s_1, then |L_{t+1} - L_t| / (s_{t+1} - s_t).

    Args:
        losses: L_1 to L_T, the mean losses under noise.
        sigmas: s_1 to s_T.
        at_rest: L_0; the released code takes 0, which makes the first slope the depth of the loss.
    """
    levels, values = (0.0, *sigmas), (at_rest, *losses)
    rises = zip(values[1:], values[:-1], levels[1:], levels[:-1], strict=True)
    return [abs(high - low) / (above - below) for high, low, above, below in rises]


def flatness(losses: Sequence[float], sigmas: Sequence[float], *, at_rest: float = 0.0) -> float:
    """W = 1 / (sum of the slopes + 1e-5), larger for a deeper and flatter loss; 0 where a loss is not finite.

    Source: arXiv 2305.08611, released code. The arguments are those of `slopes`.
    """
    if not all(map(math.isfinite, (*losses, at_rest))):
        return 0.0
    return 1.0 / (sum(slopes(losses, sigmas, at_rest=at_rest)) + EPSILON)


def metrics_of(measured: Mapping[str, Mapping[str, Any]], settings: ScoreSettings) -> dict[str, float]:
    """The metrics of an architecture.

    Args:
        measured: what `Scorer.measure` returned, some time.
        settings: those it was measured with, but for `subtract_l0`, which is free.

    Returns:
        See `Metrics`.
    """
    metrics: dict[str, float] = {}
    if "noise" in measured:
        noise = measured["noise"]
        at_rest = _number(noise["loss"]) if settings.subtract_l0 else 0.0
        draws = [[_number(loss) for loss in draw] for draw in noise["losses"]]
        metrics["flatness"] = sum(flatness(draw, settings.sigmas, at_rest=at_rest) for draw in draws) / len(draws)
    if "clean" in measured:
        metrics["loss"] = _number(measured["clean"]["loss"])
        metrics["accuracy"] = measured["clean"]["accuracy"]
    if "angle" in measured:
        metrics["angle"] = measured["angle"]["radians"]
    return metrics


def notes_of(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a person should know of the measurement: losses that overflowed."""
    noise, clean = measured.get("noise"), measured.get("clean")
    notes = []
    if clean is not None and clean["loss"] is None:
        notes.append("the loss is not finite")
    if noise is not None and (broken := sum(loss is None for draw in noise["losses"] for loss in draw)):
        count = sum(len(draw) for draw in noise["losses"])
        notes.append(f"the loss is not finite in {broken} of {count} passes under noise: their flatness is 0")
    return notes


def _number(loss: float | None) -> float:
    """A stored loss; JSON has no infinity, so None stands for what is not finite."""
    return math.inf if loss is None else loss
