"""One finding of an analysis: for the JSON, the table on the terminal, and the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Draw = Callable[[Path], Path]
"""Draws into a folder; returns the file that a page shows."""


@dataclass(frozen=True)
class Section:
    """One finding.

    Args:
        key: its name in the JSON and of its files.
        title: its heading.
        data: what the JSON says; numpy arrays and NaN allowed, see `plain`.
        columns, rows: its table; no columns, no table.
        note: a sentence on how to read it.
        draw: makes its picture.
    """

    key: str
    title: str
    data: Any = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = field(default_factory=tuple)
    note: str = ""
    draw: Draw | None = None


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: arrays become lists, tuples too, NaN and infinity become null."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
