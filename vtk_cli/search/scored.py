"""Scored architectures as tables: on the terminal, as `scores.csv` for spreadsheets, as `scores.json` with every loss.

From the JSON scores can be computed again with other settings, without a network: it holds all that was measured.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vtk_cli.errors import UserError
from vtk_cli.files import write_json, write_text
from vtk_cli.models.spaces.cost import Cost, in_millions
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.reports.page import Table
from vtk_cli.search.judgement import Judgement
from vtk_cli.search.scores.scorer import Measured
from vtk_cli.search.scores.values import notes_of

CSV, JSON = "scores.csv", "scores.json"
METRICS = ("flatness", "loss", "accuracy", "angle")


@dataclass(frozen=True)
class Scored:
    """An architecture and what it was judged by.

    Args:
        genes: of it.
        score: among those it was compared with; -inf where a metric is not finite.
        metrics: `flatness`, `loss`, `accuracy` in 0..1, `angle` in radians: those that were measured.
        cost: of its network.
        measured: every loss.
    """

    genes: Genes
    score: float
    metrics: Mapping[str, float]
    cost: Cost
    measured: Measured


@dataclass(frozen=True)
class Scores:
    """Scored architectures of one supernet.

    Args:
        space: theirs.
        shape: of the networks whose cost is told.
        judgement: what they are ordered by.
        rows: the best first.
    """

    space: Space
    shape: Shape
    judgement: Judgement
    rows: tuple[Scored, ...]

    @classmethod
    def of(cls, measured: Mapping[Genes, Measured], space: Space, shape: Shape, judgement: Judgement) -> Scores:
        """Order what was measured."""
        table = space.table(shape)
        metrics = [judgement.metrics(one) for one in measured.values()]
        scores = judgement.scores(metrics)
        rows = [
            Scored(genes, value, each, table.cost(genes), one)
            for (genes, one), each, value in zip(measured.items(), metrics, scores, strict=True)
        ]
        return cls(space, shape, judgement, tuple(sorted(rows, key=lambda row: -row.score)))

    @property
    def notes(self) -> list[str]:
        """What a reader must know of single architectures."""
        return [f"{self.space.format(row.genes)}: {note}" for row in self.rows for note in notes_of(row.measured)]

    def pareto(self) -> tuple[Scored, ...]:
        """Those that no other both beats in score and undercuts in multiply-accumulates, the cheapest first."""
        front: list[Scored] = []
        scored = (row for row in self.rows if math.isfinite(row.score))
        for row in sorted(scored, key=lambda row: (row.cost.macs, -row.score)):
            if not front or row.score > front[-1].score:
                front.append(row)
        return tuple(front)

    def table(self, most: int | None = None) -> Table:
        """The best `most`, or all."""
        columns = ("", "architecture", self.judgement.name, *self._beside, "MACs", "parameters")
        rows = [
            (
                number,
                self.space.format(row.genes),
                figure(row.score),
                *(figure(row.metrics[name]) for name in self._beside),
                in_millions(row.cost.macs),
                in_millions(row.cost.params),
            )
            for number, row in enumerate(self.rows[:most], start=1)
        ]
        return Table(columns, rows)

    def lines(self, most: int) -> Table:
        """The best `most` for a terminal of 80 columns: bare genes, the score, what else was measured, the cost."""
        columns = ("", "genes", "score", *self._beside, "MACs")
        rows = [
            (
                number,
                " ".join(map(str, row.genes)),
                figure(row.score),
                *(figure(row.metrics[name]) for name in self._beside),
                in_millions(row.cost.macs),
            )
            for number, row in enumerate(self.rows[:most], start=1)
        ]
        return Table(columns, rows)

    @property
    def _beside(self) -> list[str]:
        """The metrics that were measured beside the score."""
        known = self.rows[0].metrics if self.rows else {}
        return [name for name in METRICS if name in known and name != self.judgement.name]

    def as_json(self) -> dict[str, Any]:
        """All there is: settings, scores, metrics, every loss; what is not finite is null."""
        return {
            "space": self.space.name,
            "form": self.shape.form,
            "score": self.judgement.name,
            "settings": asdict(self.judgement.settings),
            "architectures": [
                {
                    "arch": self.space.format(row.genes),
                    "genes": list(row.genes),
                    "score": finite(row.score),
                    **{name: finite(value) for name, value in row.metrics.items()},
                    "flops": row.cost.macs,
                    "params": row.cost.params,
                    "measured": row.measured,
                }
                for row in self.rows
            ],
        }

    def write(self, folder: Path) -> None:
        """Write `scores.csv` and `scores.json`.

        Raises:
            JobError, UserError: the disk is full, or the folder may not be written.
        """
        known = [name for name in METRICS if self.rows and name in self.rows[0].metrics]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("arch", "score", *known, "flops", "params"))
        for row in self.rows:
            values = (repr(row.score), *(repr(row.metrics[name]) for name in known), row.cost.macs, row.cost.params)
            writer.writerow((self.space.format(row.genes), *values))
        write_text(folder / CSV, text.getvalue())
        write_json(folder / JSON, self.as_json())


def read_scores(path: Path, space: Space) -> dict[str, dict[Genes, float]]:
    """The columns of numbers of a `scores.csv`: name -> architecture -> value, a loss with its sign turned.

    Raises:
        UserError: naming file and line: it is no such table, an architecture is none of the space or comes twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read as a table of scores", str(path), "give scores.csv") from error
    reader = csv.DictReader(io.StringIO(text))
    header = _header(reader, path)
    names = [name for name in header if name not in {"arch", "flops", "params"}]
    if "arch" not in header or not names:
        raise UserError("has no columns arch and score", str(path), "give scores.csv of `vtk search score`")
    columns: dict[str, dict[Genes, float]] = {name: {} for name in names}
    for row in _whole(reader, path):
        where = f"{path}:{reader.line_num}"
        try:
            genes = space.parse(row["arch"] or "")
            values = {name: float(row[name]) for name in names}
        except UserError as error:
            raise UserError(error.what, where, error.fix) from error
        except (TypeError, ValueError) as error:
            raise UserError("has a cell that is no number", where, "mend it") from error
        if genes in columns[names[0]]:
            raise UserError(f"{row['arch']} comes twice", where, "leave one line")
        for name, value in values.items():
            columns[name][genes] = -value if name == "loss" else value
    return columns


def _header(reader: csv.DictReader[str], path: Path) -> Sequence[str]:
    try:
        return reader.fieldnames or ()
    except csv.Error as error:
        raise UserError(f"is no table of scores: {error}", f"{path}:1", "give scores.csv") from error


def _whole(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        where = f"{path}:{reader.line_num + 1}"
        raise UserError(f"is no table of scores: {error}", where, "give scores.csv") from error


def figure(value: float) -> str:
    """A metric for people."""
    return f"{value:.4g}" if math.isfinite(value) else "-"


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
