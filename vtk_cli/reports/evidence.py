"""What proofs and benches hand back: claims that hold or do not, and speeds as ratios; as JSON and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtk_cli.reports.page import Table
from vtk_cli.reports.plain_names import printable


@dataclass(frozen=True)
class Claim:
    """Something a method is said to do, its target, and what was measured.

    Args:
        text: the claim, a sentence.
        target: what was asked for, e.g. `above 0`.
        measured: what came out, in words.
        holds: whether it did.
    """

    text: str
    target: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Proof:
    """A method's claim at small scale, with its baselines, every seed and what may not be claimed.

    Args:
        name: of the proof.
        title: what is shown, a line.
        setting: on what and how, in sentences.
        tables: the measurements, favourable or not.
        claims: each with its target.
        not_claimed: what this does not show, a sentence each.
        pictures: PNG files.
        data: the numbers, for the JSON.
    """

    name: str
    title: str
    setting: str
    tables: Sequence[Table]
    claims: Sequence[Claim]
    not_claimed: Sequence[str] = ()
    pictures: Sequence[Path] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)

    def as_json(self) -> dict[str, Any]:
        """For `--json` and `proof.json`."""
        return {
            "name": self.name,
            "title": self.title,
            "setting": self.setting,
            "holds": self.holds,
            "claims": [vars(claim) for claim in self.claims],
            "not_claimed": list(self.not_claimed),
            "tables": [
                {
                    "title": table.caption,
                    "columns": list(table.columns),
                    "rows": [list(map(str, row)) for row in table.rows],
                }
                for table in self.tables
            ],
            "data": dict(self.data),
        }

    def as_markdown(self) -> str:
        """For people, and for the README."""
        lines = [f"**{self.title}** (`vtk proof {self.name}`)", "", self.setting]
        for table in self.tables:
            lines += ["", f"{table.caption}:", "", *markdown_table(table.columns, table.rows)]
        claims = [
            (claim.text, claim.target, claim.measured, "yes" if claim.holds else "**no**") for claim in self.claims
        ]
        lines += ["", *markdown_table(("claim", "target", "measured", "holds"), claims)]
        if self.not_claimed:
            lines += ["", "Not claimed: " + " ".join(self.not_claimed)]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class BenchRow:
    """Two ways of doing the same work, timed side by side in one run.

    Args:
        name: the work.
        ours, theirs: seconds (or the unit that `name` says); medians where repeated.
        peer: what `theirs` is.
        target: the ratio theirs / ours that was aimed at; None where none was.
        device: processor or card, and threads.
        versions: of what was measured.
        note: what else must be known, e.g. that the results are equal.
    """

    name: str
    ours: float
    theirs: float
    peer: str
    target: float | None
    device: str
    versions: Mapping[str, str]
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times as long the peer takes."""
        return self.theirs / self.ours

    @property
    def holds(self) -> bool:
        """Whether the target was met; true where there is none."""
        return self.target is None or self.ratio >= self.target

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "versions": dict(self.versions), "ratio": self.ratio, "holds": self.holds}


def rows_as_markdown(rows: Sequence[BenchRow]) -> str:
    """A table for a README, with what it was measured on below it."""
    columns = ("work", "ours (ms)", "theirs (ms)", "peer", "ratio", "target", "holds", "note")
    shown = [
        (
            row.name,
            f"{row.ours * 1e3:.3g}",
            f"{row.theirs * 1e3:.3g}",
            row.peer,
            f"{row.ratio:.1f}x",
            "-" if row.target is None else f">= {row.target:g}x",
            "yes" if row.holds else "**no**",
            row.note,
        )
        for row in rows
    ]
    machines = sorted({row.device for row in rows})
    versions = sorted({f"{name} {number}" for row in rows for name, number in row.versions.items()})
    return "\n".join([*markdown_table(columns, shown), "", f"On {'; '.join(machines)}; {', '.join(versions)}."]) + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table in Markdown; what would end a cell or begin a tag is written so that it does not."""
    shown = [[_cell(str(cell)) for cell in row] for row in (columns, *rows)]
    return [
        "| " + " | ".join(shown[0]) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(row) + " |" for row in shown[1:]),
    ]


def _cell(text: str) -> str:
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(" ".join(text.split()))).replace("|", "\\|")
