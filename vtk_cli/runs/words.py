"""Times and sizes as people write them."""

from __future__ import annotations

from datetime import datetime

_UNITS = ("B", "kB", "MB", "GB", "TB")


def duration(seconds: float | None) -> str:
    """`47 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`; empty of None."""
    if seconds is None:
        return ""
    whole = round(seconds)
    for size, unit, below, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def moment(when: datetime | None) -> str:
    """`2025-01-31 17:05`, local time; empty of None."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M") if when is not None else ""


def short_moment(when: datetime | None) -> str:
    """`31 Jan 17:05`, local time; empty of None."""
    return when.astimezone().strftime("%d %b %H:%M") if when is not None else ""


def size(count: int) -> str:
    """`512 B`, `1.4 MB`: bytes in units of 1,000."""
    amount, unit = float(count), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} B" if not unit else f"{amount:.3g} {_UNITS[unit]}"
