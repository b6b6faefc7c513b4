"""Runs side by side: their numbers, and the options in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vtk_cli.errors import UserError
from vtk_cli.runs.numbers import all_numbers, headline, last_row
from vtk_cli.runs.record import Run

_PLACES = {"folder", "weights", "report", "out", "run", "next"}


@dataclass(frozen=True)
class Line:
    """One thing in all runs: its name, and each run's value as text; empty where a run has none."""

    name: str
    values: Sequence[str]

    @property
    def differs(self) -> bool:
        """Whether not all runs have the same."""
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class Comparison:
    """Two or more runs.

    Args:
        runs: in the order in which they are shown.
        names: of their columns, each another.
        headlines: the numbers that tell how good they are.
        numbers: all others that at least two runs have.
        options: in which they differ.
    """

    runs: Sequence[Run]
    names: Sequence[str]
    headlines: Sequence[Line]
    numbers: Sequence[Line]
    options: Sequence[Line]

    def as_json(self) -> dict[str, Any]:
        """For `--json`: numbers as numbers."""
        return {
            "runs": [str(run.path) for run in self.runs],
            "numbers": [_numbers(run) for run in self.runs],
            "options": {line.name: list(line.values) for line in self.options},
        }


def compare(runs: Sequence[Run]) -> Comparison:
    """Put runs side by side.

    Raises:
        UserError: there is only one.
    """
    if len(runs) < 2:
        raise UserError("one run has nothing to be compared with", "RUN", "name two or more")
    headlines = [{number.name: number.text for number in headline(run)} for run in runs]
    numbers = [_numbers(run) for run in runs]
    shared = [name for name in _keys(numbers) if sum(name in known for known in numbers) > 1]
    return Comparison(
        runs,
        _names(runs),
        [Line(name, [known.get(name, "") for known in headlines]) for name in _keys(headlines)],
        [Line(name, [_shown(known.get(name)) for known in numbers]) for name in shared],
        _changed_options(runs),
    )


def _numbers(run: Run) -> dict[str, float]:
    return {**last_row(run), **all_numbers(run.summary)}


def _changed_options(runs: Sequence[Run]) -> list[Line]:
    first = runs[0].options
    changes = [run.options.changes_from(first) for run in runs[1:]]
    lines = []
    for name in _keys(changes):
        if name in _PLACES:
            continue
        before = next(change[name][0] for change in changes if name in change)
        lines.append(Line(name, [before, *(change[name][1] if name in change else before for change in changes)]))
    commands = Line("command", [run.command for run in runs])
    return [commands, *lines] if commands.differs else lines


def _names(runs: Sequence[Run]) -> list[str]:
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def _keys(tables: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for table in tables for key in table))


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{int(value):,}" if value.is_integer() and abs(value) < 1e15 else f"{value:.5g}"
