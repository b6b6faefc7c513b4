"""Clicks as a table, CSV or TSV: `image, category, x, y`, a click a line.

`image` is a file below the folder of the images, `category` the name or the id of a class, x and y are pixels, (0, 0)
the centre of the top left one. A line with an image alone says that nothing is clicked on it. The first line may name
the columns, in any order; others than these four are passed over.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.detection.sizes import SizeOf, remembered_sizes
from vtk_cli.data.images import BrokenImage
from vtk_cli.data.points.reading import OUTSIDE, Click, PointReading, image_of, is_inside
from vtk_cli.data.points.records import Classes, PointImage, PointSet
from vtk_cli.data.problems import Problem
from vtk_cli.data.walking import check_folder, file_size, path_within
from vtk_cli.errors import UserError
from vtk_cli.files import write_text

COLUMNS = ("image", "category", "x", "y")


@dataclass(frozen=True)
class _Row:
    """A line: where it stands, and its four cells as text, stripped."""

    where: str
    image: str
    category: str
    x: str
    y: str


def read_point_table(
    path: Path, console: Console, *, images: Path | None = None, classes: Classes | None = None, first_id: int = 1
) -> PointReading:
    """Read a table of clicks; every image it names is decoded once.

    Args:
        path: the table; of a `.tsv` the cells are parted by tabs, else by commas or semicolons.
        console: shows the progress.
        images: the folder of the images; None: the one of the table.
        classes: what `category` may say; None takes the names that there are, sorted.
        first_id: of the images, which are numbered in the order in which they first come; annotations count from 1.

    Raises:
        UserError: it cannot be read, has no click, or lacks a column.
    """
    folder = path.parent if images is None else images
    check_folder(folder)
    rows = _rows(path)
    known = classes if classes is not None else _own_classes(rows, path)
    labels = {str(identity): label for label, identity in enumerate(known.ids)} if classes is not None else {}
    labels |= {name: label for label, name in enumerate(known.names)}
    by_image: dict[str, list[tuple[int, _Row]]] = {}
    for number, row in enumerate(rows, 1):
        by_image.setdefault(row.image, []).append((number, row))
    problems: list[Problem] = []
    records: list[PointImage] = []
    with (
        remembered_sizes(folder) as size_of,
        console.progress(f"reading the images of {path.name}", len(by_image)) as shown,
    ):
        for name, of_image in by_image.items():
            shown.advance()
            place, size, fault = _image(folder, name, size_of)
            if place is None or size is None:
                problems += [Problem(f"{row.where} ({name})", fault) for _, row in of_image]
                continue
            clicks = []
            for number, row in of_image:
                click = _click(row, number, labels, size)
                if isinstance(click, Problem):
                    problems.append(click)
                elif click is not None:
                    clicks.append(click)
            records.append(image_of(place, first_id + len(records), size, clicks))
    return PointReading(str(path), tuple(records), known, tuple(problems))


def write_point_table(path: Path, points: PointSet, images: Path) -> None:
    """Write clicks as CSV with a line of names; an image without a click has a line of its own.

    Args:
        path: the table.
        points: with images in or below `images`.
        images: the folder that the column `image` is relative to.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image in points.images:
        name = image.file.absolute().relative_to(images.absolute()).as_posix()
        if not len(image):
            writer.writerow([name, "", "", ""])
        for (x, y), label in zip(image.points.tolist(), image.labels.tolist(), strict=True):
            writer.writerow([name, points.classes.names[label], f"{x:.10g}", f"{y:.10g}"])
    write_text(path, text.getvalue())


def _rows(path: Path) -> list[_Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the points cannot be read", str(path), str(error)) from error
    first = text.partition("\n")[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UserError(f"is no table: {error}", f"{path}:{reader.line_num}") from error
    if not lines:
        raise UserError("has no clicks", str(path), f"give a line {','.join(COLUMNS)} each")
    columns = _columns(lines[0][1], path)
    body = lines if columns is None else lines[1:]
    order = list(range(len(COLUMNS))) if columns is None else columns
    return [
        _Row(f"{path}:{line}", *(cells[at].strip() if at < len(cells) else "" for at in order)) for line, cells in body
    ]


def _columns(cells: Sequence[str], path: Path) -> list[int] | None:
    """Where the four columns are; None where the first line is a click already."""
    names = [cell.strip().lower() for cell in cells]
    if len(names) == len(COLUMNS) and _number(names[2]) is not None and _number(names[3]) is not None:
        return None
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        fix = f"name the columns {','.join(COLUMNS)} in the first line, or give these four alone"
        raise UserError(f"has no column {', '.join(missing)}", f"{path}:1", fix)
    return [names.index(column) for column in COLUMNS]


def _own_classes(rows: Sequence[_Row], path: Path) -> Classes:
    names = tuple(sorted({row.category for row in rows if row.category}))
    if not names:
        raise UserError("has no clicks", str(path), f"give a line {','.join(COLUMNS)} each")
    return Classes(names, tuple(range(1, len(names) + 1)))


def _image(folder: Path, name: str, size_of: SizeOf) -> tuple[Path | None, tuple[int, int] | None, str]:
    """The file and its (width, height), or what is wrong."""
    place = path_within(folder, name) if name else None
    if place is None:
        return None, None, "image file lies outside the folder of the images" if name else "line names no image"
    if file_size(place) is None:
        return None, None, "image is missing"
    try:
        return place, size_of(place), ""
    except BrokenImage:
        return None, None, "image does not decode"


def _click(row: _Row, number: int, labels: dict[str, int], size: tuple[int, int]) -> Click | Problem | None:
    """The click of a line; None for one that names an image alone."""
    if not (row.category or row.x or row.y):
        return None
    if row.category not in labels:
        return Problem(f"{row.where} (category {row.category!r})", "category is unknown")
    x, y = _number(row.x), _number(row.y)
    if x is None or y is None:
        return Problem(f"{row.where} (x {row.x!r}, y {row.y!r})", "point is not two numbers")
    if not is_inside(x, y, size):
        return Problem(f"{row.where} (point ({x:g}, {y:g}), image {size[0]}x{size[1]})", OUTSIDE)
    return Click(np.array([x, y], np.float64), labels[row.category], number, "point")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
