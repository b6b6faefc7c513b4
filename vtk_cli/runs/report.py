"""A run, or several side by side, as one HTML page that needs nothing beside it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vtk_cli.reports import page
from vtk_cli.reports.plots import PALETTE
from vtk_cli.reports.small_multiples import Line, Small, draw_small_multiples
from vtk_cli.runs.comparison import Comparison
from vtk_cli.runs.comparison import Line as Compared
from vtk_cli.runs.numbers import all_numbers, curves, headline
from vtk_cli.runs.record import Run
from vtk_cli.runs.words import duration, moment

_MOST_PANELS, _MOST_PICTURES, _MOST_ROWS = 18, 24, 60
_PICTURES = {".png", ".jpg", ".jpeg", ".svg"}
_LARGEST_PICTURE = 4 * 2**20
"""Bytes; a drawing of more lines is shown by its pixels."""


def run_page(run: Run, drawings: Path) -> page.Page:
    """The page of one run: its numbers, curves, pictures, tables, options and surroundings.

    Args:
        run: done or not.
        drawings: a folder for the curves; the page carries them once it is written.

    Raises:
        JobError, UserError: a picture cannot be drawn on this disk, or read.
    """
    numbers = {number.name: number.text for number in headline(run)}
    sections = [
        page.Section("Read this first", _state(run)),
        page.Section("Curves", _drawn([run], [run.name], run.name, drawings)),
        page.Section("Pictures", _pictures(run)),
        page.Section("Tables", _tables(run)),
        page.Section("Numbers", _numbers(run)),
        page.Section("Options", [_pairs(list(run.options.options.items()))]),
        page.Section("Surroundings", [_pairs(_surroundings(run)), _attempts(run)]),
    ]
    took = {"took": duration(run.seconds)} if run.seconds is not None else {}
    return page.Page(
        f"vtk {run.command}: {run.name}",
        f"{run.status}, started {moment(run.attempts[0].started)}",
        {**numbers, **took},
        [section for section in sections if section.parts],
        f"vtk {run.command} --config {run.path / 'config.toml'}",
    )


def comparison_page(compared: Comparison, drawings: Path) -> page.Page:
    """The page of several runs: their numbers, where their options differ, their curves in the same panels.

    Args:
        compared: the runs; of the first ten curves are drawn.
        drawings: as of `run_page`.
    """
    columns = ("", *compared.names)
    facts = [
        ("status", *(run.status for run in compared.runs)),
        ("started", *(moment(run.attempts[0].started) for run in compared.runs)),
        ("took", *(duration(run.seconds) for run in compared.runs)),
    ]
    best = [(line.name, *line.values) for line in compared.headlines]
    sections = [
        page.Section("Results", [page.Table(columns, [*best, *facts])]),
        page.Section("Options that differ", _lines(columns, compared.options) or [page.Text("All options agree.")]),
        page.Section("Curves", _drawn(compared.runs[: len(PALETTE)], compared.names, "runs side by side", drawings)),
        page.Section("Numbers", _lines(columns, [line for line in compared.numbers if line.differs])),
    ]
    return page.Page(
        f"{len(compared.runs)} runs side by side",
        ", ".join(dict.fromkeys(f"vtk {run.command}" for run in compared.runs)),
        {},
        [section for section in sections if section.parts],
        f"vtk runs report {' '.join(str(run.path) for run in compared.runs)}",
    )


def _state(run: Run) -> list[page.Text]:
    if run.status == "done":
        return []
    why = f": {run.last.message}" if run.last.message else ""
    return [page.Text(f"This run is {run.status}{why}. What follows is what it left so far.", "warning")]


def _drawn(runs: Sequence[Run], names: Sequence[str], title: str, drawings: Path) -> list[page.Image]:
    """The runs' curves as one picture; averaged weights are a line of their own in a run's panel."""
    kinds = [curves(run.rows) for run in runs]
    along = next((axis for axis, quantities in kinds if quantities), "")
    panels: dict[str, list[Line]] = {}
    for run, name, (axis, quantities) in zip(runs, names, kinds, strict=False):
        for quantity in quantities if axis == along else ():
            is_average = quantity.startswith("ema_") and quantity.removeprefix("ema_") in quantities
            called = f"{name}, averaged weights" if is_average and len(runs) == 1 else name
            panel = quantity.removeprefix("ema_") if is_average and len(runs) == 1 else quantity
            panels.setdefault(panel, []).append(_line(run, called, axis, quantity))
    if not panels:
        return []
    shown = [Small(quantity, lines) for quantity, lines in [*panels.items()][:_MOST_PANELS]]
    picture = draw_small_multiples(drawings / "curves", shown, x_label=along, title=title)
    left = len(panels) - len(shown)
    return [page.Image(picture.svg, f"curves of {title}", f"and {left} more quantities" if left else "")]


def _line(run: Run, name: str, along: str, quantity: str) -> Line:
    rows = [row for row in run.rows if along in row and quantity in row]
    points = [(all_numbers(row).get(along, math.nan), all_numbers(row).get(quantity, math.nan)) for row in rows]
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    return Line(name, x, y)


def _pictures(run: Run) -> list[page.Image]:
    found = sorted(path for path in run.path.glob("plots/*") if path.suffix.lower() in _PICTURES)
    chosen: dict[str, Path] = {}
    for path in found:  # .png sorts before .svg: lines win over pixels where they are not too many
        if path.stat().st_size <= _LARGEST_PICTURE:
            chosen[path.stem] = path
    parts: list[page.Image] = []
    for name, path in [*chosen.items()][:_MOST_PICTURES]:
        parts.append(page.Image(path, name.replace("-", " "), name.replace("-", " ").replace("_", " ")))
    return parts


def _tables(run: Run) -> list[page.Table | page.Text]:
    parts: list[page.Table | page.Text] = []
    for path in sorted(run.path.glob("*.csv")):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))
        except (OSError, UnicodeDecodeError, csv.Error):
            parts.append(page.Text(f"{path.name} cannot be read.", "warning"))
            continue
        if not rows:
            continue
        columns, *body = rows
        whole = [row for row in body if len(row) == len(columns)][:_MOST_ROWS]
        left = len(body) - len(whole)
        parts.append(page.Table(columns, whole, f"{path.name}{f', {left:,} more rows in the file' if left else ''}"))
    return parts


def _numbers(run: Run) -> list[page.Table]:
    numbers = all_numbers(run.summary)
    return [page.Table(("", "value"), [(name, f"{value:.6g}") for name, value in numbers.items()])] if numbers else []


def _lines(columns: Sequence[str], lines: Sequence[Compared]) -> list[page.Table]:
    return [page.Table(columns, [(line.name, *line.values) for line in lines])] if lines else []


def _pairs(pairs: Sequence[tuple[str, object]]) -> page.Table:
    return page.Table(("", "value"), [(name, str(value)) for name, value in pairs])


def _surroundings(run: Run) -> list[tuple[str, object]]:
    known = [
        ("folder", run.path),
        ("command", " ".join(run.argv)),
        ("device", run.device),
        ("seed", run.seed),
        ("Slurm job", run.slurm_job),
        *run.versions.items(),
    ]
    return [(name, value) for name, value in known if value not in {None, ""}]


def _attempts(run: Run) -> page.Table:
    rows = [
        (index, each.status, moment(each.started), duration(each.seconds), each.host, each.message)
        for index, each in enumerate(run.attempts, 1)
    ]
    return page.Table(("sitting", "ended", "started", "took", "host", "message"), rows)
