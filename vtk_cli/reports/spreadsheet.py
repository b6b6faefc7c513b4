"""Names in CSV files that people open in spreadsheets, which run as a formula what begins like one.

Files that `vtk` reads back (labels, points, matrices, manifests) hold names as they are.
"""

from __future__ import annotations

_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(name: str) -> str:
    """A name of a file or class as text in UTF-8 that no spreadsheet takes for a formula: `'=1+1` for `=1+1`."""
    plain = name.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    return f"'{plain}" if plain.startswith(_BEGINS_A_FORMULA) else plain
