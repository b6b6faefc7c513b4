"""Taking the last round back: its question, its answers, its model; whole, however often it is stopped on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from vtk_cli.adapt.ledger import LabelRow
from vtk_cli.adapt.run_files import RunFiles, append_rows, load_run, now, save_state
from vtk_cli.adapt.scoreboard import read_metrics, write_metrics
from vtk_cli.adapt.state import AdaptState, state_from_json, state_to_json, undone
from vtk_cli.errors import UserError
from vtk_cli.files import write_json


def undo_round(files: RunFiles) -> AdaptState:
    """Take the last round back.

    Raises:
        UserError: there is none but the one without labels.
    """
    state, rows = load_run(files)
    before, row = undone(state, rows, now())
    write_json(_note(files), {"state": state_to_json(before), "row": _row_to_json(row)})
    return finish_undo(files) or before


def finish_undo(files: RunFiles) -> AdaptState | None:
    """Do what an undo that was begun has left to do; None where there is none.

    Raises:
        UserError: its note is damaged.
    """
    note = _note(files)
    if not note.is_file():
        return None
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        row = LabelRow(**said["row"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot be read ({error})", str(note), "remove it and undo again") from error
    state = state_from_json(said["state"], str(note))
    _, rows = load_run(files)
    if not rows or rows[-1] != row:
        append_rows(files.labels, [row])
    save_state(files, state)
    write_metrics(files, [one for one in read_metrics(files) if one["round"] <= state.round])
    shutil.rmtree(files.round(row.round), ignore_errors=True)
    shutil.rmtree(files.folder / "checkpoints" / f"round_{row.round:02d}", ignore_errors=True)
    files.model(row.round).unlink(missing_ok=True)
    note.unlink()
    return state


def _note(files: RunFiles) -> Path:
    return files.folder / "undo.json"


def _row_to_json(row: LabelRow) -> dict[str, object]:
    return {
        "sample_id": row.sample_id,
        "label": row.label,
        "round": row.round,
        "origin": row.origin,
        "time": row.time,
    }
