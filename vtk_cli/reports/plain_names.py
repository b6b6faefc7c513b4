"""Names of files and classes, which come from anyone, as they may stand in pictures, pages and tables."""

from __future__ import annotations

_SPELLED_OUT = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0xFFFE, 0xFFFF)}
"""What XML may not hold, a line of text not, or a terminal would obey."""
_BEGINS_A_FORMULA = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """`text` with what cannot be drawn spelled out: control characters, and halves, which UTF-8 cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_SPELLED_OUT)


def printable_lines(text: str) -> str:
    """`printable` line by line."""
    return "\n".join(map(printable, text.split("\n")))


def spreadsheet_cell(name: str) -> str:
    """A name for a CSV file that people open in a spreadsheet, which runs what begins like a formula: `'=1+1`.

    Files that `vtk` reads back (labels, points, matrices, manifests) hold names as they are instead.
    """
    plain = printable(name)
    return f"'{plain}" if plain.startswith(_BEGINS_A_FORMULA) else plain
