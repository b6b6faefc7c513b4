"""The numbers of a run: the few that tell how good it is, and all others by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vtk_cli.runs.record import Row, Run

_HEADLINES: MappingProxyType[str, tuple[tuple[str, str, str], ...]] = MappingProxyType(
    {
        "train": (("top-1", "top1", ".1%"), ("mAP", "mean_ap", ".1%"), ("NLL", "nll", ".3f")),
        "detect train": (("AP", "boxes.AP", ".1%"), ("AP50", "boxes.AP50", ".1%"), ("mask AP", "masks.AP", ".1%")),
        "segment run": (("mask AP", "student.AP", ".1%"), ("AP50", "student.AP50", ".1%")),
        "video-pretrain run": (("top-1", "top1", ".1%"), ("kNN top-1", "knn_top1", ".1%")),
        "search run": (("top-1", "retrained.top1", ".1%"), ("flatness", "score.flatness", ".4g")),
        "search retrain": (("top-1", "top1", ".1%"),),
        "search rank": (("tau", "scores.flatness.tau.value", ".3f"),),
        "prune run": (("FD(digits-cnn)", "quality.FD(digits-cnn)", ".4g"), ("kept", "kept_fractions.prunable", ".2%")),
        "adapt run": (("target test", "acc_test", ".1f"), ("target pool", "acc_pool_all", ".1f")),
    }
)
"""Command -> (what it is called, its place in the summary or in the last row, how it is written)."""

_ALSO = (("top-1", "top1", ".1%"), ("AP", "ap", ".1%"), ("kNN top-1", "knn_top1", ".1%"), ("loss", "loss", ".4g"))
"""What is told of others, and of runs that are not done."""
_MOST = 2
_AXES = {"epoch", "round", "step", "updates"}


@dataclass(frozen=True)
class Number:
    """A headline number: its name, its value and the value as written."""

    name: str
    value: float
    text: str


def headline(run: Run) -> list[Number]:
    """The one or two numbers that tell how good a run is; empty where it has none yet."""
    known = {**last_row(run), **all_numbers(run.summary)}
    if run.command == "similarity":
        return _similarity(run.summary)
    for places in (_HEADLINES.get(run.command, ()), _ALSO):
        found = [Number(name, known[key], f"{known[key]:{form}}") for name, key, form in places if key in known]
        if found:
            return found[:_MOST]
    return []


def last_row(run: Run) -> dict[str, float]:
    """The numbers of the last row of each kind, rows of single updates before rows of epochs."""
    steps = [row for row in run.rows if "epoch" not in row and "round" not in row]
    whole = [row for row in run.rows if "epoch" in row or "round" in row]
    found: dict[str, float] = {}
    for rows in (steps, whole):
        for row in rows[-1:]:
            found |= all_numbers(row)
    return found


def all_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Every finite number in nested tables, `boxes.AP` -> value; what stands in lists is left out."""
    return dict(_numbers(values, ""))


def curves(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """What a run has curves of: along what (`epoch`, `round` or `step`), and the names of the quantities.

    Quantities that never change, and the axes themselves, are left out.
    """
    along = next((name for name in ("epoch", "round") if any(name in row for row in rows)), "step")
    inside = [row for row in rows if _number(row.get(along)) is not None]
    values: dict[str, set[float]] = {}
    for row in inside:
        for name, value in _numbers(row, ""):
            values.setdefault(name, set()).add(value)
    return along, [name for name, taken in values.items() if len(taken) > 1 and name not in _AXES]


def _similarity(summary: Mapping[str, Any]) -> list[Number]:
    scores = summary.get("sat")
    if not isinstance(scores, list) or not all(isinstance(row, list) for row in scores):
        return []
    pairs = [value for index, row in enumerate(scores) for value in row[index + 1 :] if _number(value) is not None]
    if not pairs:
        return []
    mean = sum(pairs) / len(pairs)
    name = "SAT" if len(pairs) == 1 else f"mean SAT of {len(pairs):,} pairs"
    return [Number(name, mean, f"{mean:.3f}")]


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}.")
        elif (number := _number(value)) is not None:
            yield f"{prefix}{key}", number


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
