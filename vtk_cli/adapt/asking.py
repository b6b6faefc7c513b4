"""The question of a round as files: a table to fill in, contact sheets to look at, a page to label on.

Nothing in them depends on when they are written: the same question gives the same bytes.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtk_cli.adapt.labelling_page import write_labelling_page
from vtk_cli.adapt.labels import SPREADSHEETS
from vtk_cli.adapt.pool import Pool
from vtk_cli.adapt.query.outputs import Picks, PoolOutputs
from vtk_cli.adapt.run_files import csv_text
from vtk_cli.adapt.tables import read_table
from vtk_cli.files import atomic_path, write_json, write_text
from vtk_cli.reports.contact_sheet import Tile, write_contact_sheet

COLUMNS = ("rank", "sample_id", "path", "score", "pred", "pred_conf", "second", "label", "note")
SHEET_COLUMNS, SHEET_ROWS = 8, 6
TABLE, DETAILS, PAGE, TASKS, SCORES = "query.csv", "query.json", "label.html", "label_studio.json", "scores.npz"
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest a ZIP file knows; written in place of now."""


@dataclass(frozen=True)
class Asked:
    """One image of a question.

    Args:
        rank: from 1, in the order of the query.
        sample_id: of the image.
        path: where it lies.
        score: of the strategy; None where it gave none.
        pred, second: the model's best two classes; empty where it is not to be told, or was not asked.
        pred_conf: probability of the best, 0 to 1.
    """

    rank: int
    sample_id: str
    path: str
    score: float | None
    pred: str = ""
    pred_conf: float | None = None
    second: str = ""


@dataclass(frozen=True)
class Query:
    """A question.

    Args:
        rows: its images.
        round: its number; 0: the audit.
        strategy: that chose them.
        seed: of the run.
        draw: how often it was drawn anew.
        model_sha1: of the weights that were asked; empty of none.
        class_names: in order.
    """

    rows: tuple[Asked, ...]
    round: int
    strategy: str
    seed: int
    draw: int
    model_sha1: str
    class_names: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The sample ids, in order."""
        return tuple(row.sample_id for row in self.rows)


def asked_rows(
    picks: Picks, pool: Pool, class_names: Sequence[str], outputs: PoolOutputs | None = None
) -> tuple[Asked, ...]:
    """The images of a question with what the model thinks of them.

    Args:
        picks: of a strategy.
        pool: the target.
        class_names: by number.
        outputs: of the model; None: blind, so that its guesses do not lead whoever labels.
    """
    row_of = {} if outputs is None else {name: row for row, name in enumerate(outputs.ids)}
    rows = []
    for rank, (name, score) in enumerate(zip(picks.ids, picks.scores, strict=True), 1):
        said: dict[str, Any] = {}
        if outputs is not None and name in row_of:
            p = outputs.logits[row_of[name]].float().softmax(0)
            best = p.argsort(descending=True, stable=True)[:2].tolist()
            said = {
                "pred": class_names[best[0]],
                "pred_conf": _rounded(float(p[best[0]])),
                "second": class_names[best[1]] if len(best) > 1 else "",
            }
        rows.append(Asked(rank, name, pool.path(name), None if math.isnan(score) else _rounded(score), **said))
    return tuple(rows)


def write_query(folder: Path, query: Query, pool: Pool, outputs: PoolOutputs | None = None) -> None:
    """Write a question.

    `query.csv` with an empty column `label` to fill in and hand back; `query.json`, the same with where it came from;
    `contact_sheet_NN.png`, 48 images each; `label.html`, a page to label on that needs no network; and
    `label_studio.json`, the same tasks for Label Studio. `query.json` is written last: with it, the others are there.

    Args:
        folder: of the round; made if missing, and what an earlier question left in it is replaced, but for labels
            and notes that someone wrote into its table.
        query: the question.
        pool: the target.
        outputs: of the model for every candidate, kept in `scores.npz`.

    Raises:
        BrokenImage: an image cannot be read.
        UserError: the table of an earlier question is none any more.
        JobError: the disk is full.
    """
    filled = _filled(folder / TABLE)
    (folder / DETAILS).unlink(missing_ok=True)
    cells = [
        [row.rank, row.sample_id, row.path, row.score, row.pred, row.pred_conf, row.second, *said]
        for row in query.rows
        for said in [filled.get(row.sample_id, ["", ""])]
    ]
    write_text(folder / TABLE, csv_text([COLUMNS, *cells]))
    _write_sheets(folder, query, pool)
    title = f"Round {query.round}" if query.round else "Audit"
    write_labelling_page(folder / PAGE, title, query.rows, query.class_names, pool)
    write_json(folder / TASKS, [_task(row) for row in query.rows])
    if outputs is not None:
        write_scores(folder / SCORES, outputs)
    fields = asdict(query)
    rows = fields.pop("rows")
    write_json(folder / DETAILS, {**fields, "rows": list(rows)})


def write_scores(path: Path, outputs: PoolOutputs) -> None:
    """Write what a model says of its candidates, as NumPy reads it: `ids`, `logits`, and `predicted_losses` if any."""
    arrays: dict[str, npt.NDArray[Any]] = {"ids": np.array(outputs.ids), "logits": outputs.logits.float().numpy()}
    if outputs.predicted_losses is not None:
        arrays["predicted_losses"] = outputs.predicted_losses.float().numpy()
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", _FIRST_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue())


def _filled(path: Path) -> dict[str, list[str]]:
    """By sample id, the label and the note that someone wrote into an earlier table: not to be lost with it."""
    if not path.is_file():
        return {}
    rows = read_table(path, SPREADSHEETS).rows
    return {row.get("sample_id", ""): [row.get("label", ""), row.get("note", "")] for _, row in rows}


def _write_sheets(folder: Path, query: Query, pool: Pool) -> None:
    on_sheet = SHEET_COLUMNS * SHEET_ROWS
    starts = range(0, len(query.rows), on_sheet)
    title = f"Round {query.round}: {query.strategy}" if query.round else "Audit"
    for number, start in enumerate(starts, 1):
        rows = query.rows[start : start + on_sheet]
        tiles = [Tile(pool.image(row.sample_id), f"{row.rank}  {row.pred}".rstrip()) for row in rows]
        write_contact_sheet(_sheet(folder, number), tiles, columns=SHEET_COLUMNS, title=title)
    for old in folder.glob("contact_sheet_*.png"):
        if old not in {_sheet(folder, number) for number in range(1, len(starts) + 1)}:
            old.unlink()


def _sheet(folder: Path, number: int) -> Path:
    return folder / f"contact_sheet_{number:02d}.png"


def _task(row: Asked) -> dict[str, Any]:
    return {"data": {"sample_id": row.sample_id, "image": row.path, "rank": row.rank}}


def _rounded(value: float) -> float:
    """Six significant digits: beyond them machines differ."""
    return float(f"{value:.6g}")
