"""Reads the toolkit's own formats: a CSV `file,x,y[,class][,time]`, and a JSON list of files with their points.

    [{"file": "cat/1.jpg", "points": [{"x": 0.5, "y": 0.25, "class": "cat", "time": 3.1}]}]

A file may come several times; its points are ordered by their time where all of them have one. People write these files
by hand, so a fault is an error that names the line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.data.byproducts.marks import OWN_LABEL, Collected
from vtk_cli.data.byproducts.places import number
from vtk_cli.errors import UserError

NAMES = {
    "file": "file",
    "image": "file",
    "filename": "file",
    "file_name": "file",
    "x": "x",
    "y": "y",
    "class": "class",
    "label": "class",
    "time": "time",
}
"""What columns may be called, letter case aside."""


@dataclass(frozen=True)
class _Row:
    file: str
    x: float
    y: float
    category: str | None
    time: float | None
    line: int


def collect_csv(collected: Collected, path: Path, text: str) -> None:
    """Add the points of a CSV.

    Raises:
        UserError: a column is missing, or a line is wrong.
    """
    _collect(collected, _csv_rows(collected, path, text))


def collect_json(collected: Collected, path: Path, entries: Iterable[Any]) -> None:
    """Add the points of the JSON list's entries.

    Raises:
        UserError: an entry is wrong.
    """
    _collect(collected, _json_rows(path, entries))


def _csv_rows(collected: Collected, path: Path, text: str) -> Iterator[_Row]:
    lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        columns = [NAMES.get(name.strip().lower(), "") for name in next(lines, [])]
        for needed in ("file", "x", "y"):
            if columns.count(needed) != 1:
                what = f"the header has {columns.count(needed)} columns {needed!r}"
                raise UserError(what, f"{path}:1", "write the header file,x,y and, if you like, class and time")
        for cells in lines:
            where = f"{path}:{lines.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise UserError(f"has {len(cells)} cells, the header {len(columns)}", where)
            row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if name}
            if not row["x"] and not row["y"]:
                collected.image(_file(row, where))
                collected.skip("rows without a place")
                continue
            yield _row(row, where, lines.line_num)
    except csv.Error as error:
        raise UserError(f"is not CSV: {error}", f"{path}:{lines.line_num}") from error


def _json_rows(path: Path, entries: Iterable[Any]) -> Iterator[_Row]:
    for entry_number, entry in enumerate(entries, 1):
        where = f"{path}: entry {entry_number}"
        points = entry.get("points") if isinstance(entry, dict) else None
        if not isinstance(points, list):
            raise UserError(
                "is not a file with its points", where, 'write {"file": ..., "points": [{"x": ..., "y": ...}]}'
            )
        for index, point in enumerate(points, 1):
            if not isinstance(point, dict):
                raise UserError(f"point {index} is not an object with x and y", where)
            yield _row({**point, "file": entry.get("file")}, f"{where}, point {index}", entry_number)


def _file(row: Mapping[str, Any], where: str) -> str:
    file = row.get("file")
    if not isinstance(file, str) or not file:
        raise UserError("names no file", where)
    return file


def _row(row: Mapping[str, Any], where: str, line: int) -> _Row:
    x, y = number(row.get("x")), number(row.get("y"))
    if x is None or y is None:
        shown = f"({_shown(row.get('x'))}, {_shown(row.get('y'))})"
        raise UserError(f"the point {shown} is not two finite numbers", where)
    time = row.get("time")
    untimed = time is None or time == ""
    at = None if untimed else number(time)
    if at is None and not untimed:
        raise UserError(f"the time {_shown(time)} is not a finite number", where)
    category = row.get("class")
    if category is not None and not isinstance(category, (str, int)):
        raise UserError(f"the class {_shown(category)} is not a name", where)
    return _Row(_file(row, where), x, y, None if category is None else str(category) or None, at, line)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _collect(collected: Collected, rows: Iterable[_Row]) -> None:
    of_file: dict[str, dict[tuple[float, float, str | None, float | None], _Row]] = {}
    for row in rows:
        known = of_file.setdefault(row.file, {})
        if known.setdefault((row.x, row.y, row.category, row.time), row) is not row:
            collected.skip("repeated rows")
    for file, distinct in of_file.items():
        image = collected.image(file)
        points = list(distinct.values())
        if all(point.time is not None for point in points):
            points.sort(key=lambda point: point.time or 0.0)
        for point in points:
            label = OWN_LABEL if point.category is None else collected.label(point.category)
            collected.add("clicks", image, (point.x, point.y), label=label, line=point.line)
