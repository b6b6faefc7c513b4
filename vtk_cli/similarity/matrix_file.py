"""Score matrices as CSV, in the layout of the matrix released with arXiv 2210.11407.

An empty corner, the names along the first row and again down the first column, scores in between. A matrix read here
is enough for everything that needs scores alone: clusters, trees, maps, feature importance, teachers.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vtk_cli.errors import UserError, nearest
from vtk_cli.files import write_text
from vtk_cli.similarity.sat import MAX_SAT, Floats

ROUNDING = 1e-6
"""How far two entries that should be equal may lie apart in a file whose numbers were rounded."""

MIN_SAT = -745.0
"""Below this a score is the logarithm of no positive float64."""


def write_matrix_csv(path: Path, names: Sequence[str], matrix: Floats) -> None:
    """Write an (N, N) matrix; every number in the fewest digits that read back to the same float64, NaN as `nan`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["", *names])
    table.writerows([name, *(repr(float(value)) for value in row)] for name, row in zip(names, matrix, strict=True))
    write_text(path, text.getvalue())


def read_matrix_csv(path: Path) -> tuple[tuple[str, ...], Floats]:
    """Read a matrix of SAT scores; UTF-8 with or without a byte-order mark.

    Returns:
        The N names and the (N, N) scores, symmetric to the last bit (the mean of both triangles).

    Raises:
        UserError: naming the line and column: the file is missing or not text, not square, its row and column names
            differ, an entry is not a finite number or is above ln 100, or two mirrored entries differ.
    """
    lines = _lines(path)
    names = tuple(cell.strip() for cell in lines[0][1][1:])
    _check_names(path, names, lines)
    matrix = np.array([_numbers(path, names, line, cells) for line, cells in lines[1:]], dtype=np.float64)
    _check_symmetric(path, names, matrix)
    return names, (matrix + matrix.T) / 2.0


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with its line number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            lines = [(rows.line_num, cells) for cells in rows if any(cell.strip() for cell in cells)]
    except OSError as error:
        raise UserError(f"the matrix cannot be read ({error.strerror})", str(path), "check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"not a CSV file in UTF-8 ({error})", str(path), "export it as CSV (UTF-8)") from error
    if not lines:
        raise UserError("the file is empty", str(path), "the first row must hold the names after an empty cell")
    return lines


def _check_names(path: Path, names: tuple[str, ...], lines: list[tuple[int, list[str]]]) -> None:
    first_line, rows = lines[0][0], lines[1:]
    where = f"{path}:{first_line}"
    if len(names) < 2:
        fix = "separate the columns by commas" if set(";\t") & set(lines[0][1][0]) else "give at least two"
        raise UserError(f"the first row names {len(names)} networks after its empty first cell", where, fix)
    if lines[0][1][0].strip():
        raise UserError(f"the first cell is '{lines[0][1][0]}'", where, "leave it empty and begin the names after it")
    if not all(names):
        raise UserError("a network has no name", where, "fill it in")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"the name '{repeated[0]}' appears twice", where, "give every network its own name")
    if len(rows) != len(names):
        raise UserError(f"not square: {len(rows)} rows but {len(names)} columns", str(path), "add what is missing")
    for (line, cells), name in zip(rows, names, strict=True):
        found = cells[0].strip()
        if found != name:
            fix = nearest(found, names, 1) or "rows and columns must name the same networks in the same order"
            raise UserError(f"this row is named '{found}' where the columns have '{name}'", f"{path}:{line}", fix)


def _numbers(path: Path, names: tuple[str, ...], line: int, cells: list[str]) -> list[float]:
    if len(cells) != len(names) + 1:
        raise UserError(f"{len(cells) - 1} values in a row of {len(names)}", f"{path}:{line}", "not square")
    return [_number(path, line, name, cell) for name, cell in zip(names, cells[1:], strict=True)]


def _number(path: Path, line: int, column: str, cell: str) -> float:
    where = f"{path}:{line}, column {column}"
    try:
        value = float(cell)
    except ValueError:
        raise UserError(f"'{cell}' is not a number", where, "give a score such as 2.6649") from None
    if not np.isfinite(value):
        raise UserError(f"'{cell.strip()}' is not a finite number", where, "leave this network out or score the pair")
    if value < MIN_SAT:
        raise UserError(f"{value:g} is the log of no percentage", where, "give a score such as 2.6649")
    if value > MAX_SAT + ROUNDING:
        raise UserError(
            f"{value:g} is above ln 100 = {MAX_SAT:.4f}", where, "give scores, the natural log of the percentage"
        )
    return value


def _check_symmetric(path: Path, names: tuple[str, ...], matrix: Floats) -> None:
    apart = np.argwhere(np.triu(np.abs(matrix - matrix.T) > ROUNDING))
    if len(apart):
        i, j = apart[0]
        raise UserError(
            f"not symmetric: {names[i]}, {names[j]} is {matrix[i, j]:g} but {names[j]}, {names[i]} is {matrix[j, i]:g}",
            str(path),
            "both must be the same score",
        )
