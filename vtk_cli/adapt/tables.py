"""Texts and tables that people wrote: read whole, or refused with the line."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.errors import UserError


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV table with a header.

    Args:
        columns: their names, stripped.
        rows: the line each one ends on, and its cells by column, stripped; of a short row the others are empty.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_text(path: Path) -> str:
    """The text of a file, without the mark that spreadsheets put before it.

    Raises:
        UserError: it is not readable, or no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read as text", str(path), str(error)) from error


def read_table(path: Path, delimiters: str = ",") -> Table:
    """The table in a file.

    Args:
        path: of the file.
        delimiters: what may part the columns; the one that the header has most of does.

    Raises:
        UserError: it is not readable, or no table; the line is named.
    """
    text = read_text(path)
    delimiter = max(delimiters, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = []
    try:
        columns = tuple(name.strip() for name in next(reader, ()))
        for cells in reader:
            if cells:
                given = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
                rows.append((reader.line_num, dict.fromkeys(columns, "") | given))
    except csv.Error as error:
        where = f"{path}:{max(reader.line_num, 1)}"
        raise UserError(f"is no CSV table ({error})", where, "look for a quote left open") from error
    return Table(columns, tuple(rows))
