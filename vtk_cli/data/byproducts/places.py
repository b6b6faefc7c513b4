"""Numbers and places as annotation files write them: anything may be there, only finite numbers count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def fractions_of(
    corners: Sequence[float | None], width: float | None, height: float | None
) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom in pixels as fractions inside the image; None where no area is left."""
    left, top, right, bottom = corners
    if not width or not height or width < 0 or height < 0:
        return None
    if left is None or top is None or right is None or bottom is None:
        return None
    left, top, right, bottom = (
        _inside(left / width),
        _inside(top / height),
        _inside(right / width),
        _inside(bottom / height),
    )
    return (left, top, right, bottom) if left < right and top < bottom else None


def number(value: Any) -> float | None:
    """A finite number from a JSON number or a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def place(record: Any) -> tuple[float, float] | None:
    """The x and y of a JSON object; None unless both are finite numbers."""
    if not isinstance(record, dict):
        return None
    x, y = number(record.get("x")), number(record.get("y"))
    return None if x is None or y is None else (x, y)


def is_true(value: Any) -> bool:
    """Whether a flag is set: true in JSON, the text `True` in XML (where `False` would be a true string)."""
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def listed(value: Any) -> list[Any]:
    """`value` where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def _inside(value: float) -> float:
    return min(max(value, 0.0), 1.0)
