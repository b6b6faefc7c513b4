"""Where everything of a run lies, and how it is read and written: whole, or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vtk_cli.adapt.labels import rows_text
from vtk_cli.adapt.ledger import ORIGINS, LabelRow
from vtk_cli.adapt.state import AdaptState, settled, state_from_json, state_to_json
from vtk_cli.errors import UserError
from vtk_cli.files import Busy, lock, write_json, write_text

LABEL_COLUMNS = ("sample_id", "label", "round", "origin", "time")


@dataclass(frozen=True)
class RunFiles:
    """The files of a run in the folder `folder`."""

    folder: Path

    @property
    def state(self) -> Path:
        """Where the run stands."""
        return self.folder / "state.json"

    @property
    def labels(self) -> Path:
        """The ledger; rows are only added."""
        return self.folder / "labels.csv"

    @property
    def manifest(self) -> Path:
        """The target's images as they were at the start."""
        return self.folder / "manifest.csv"

    @property
    def classes(self) -> Path:
        """The class names, in order."""
        return self.folder / "classes.json"

    @property
    def metrics(self) -> Path:
        """A row for each round."""
        return self.folder / "metrics.csv"

    @property
    def lock(self) -> Path:
        """Held by whoever works on the run."""
        return self.folder / "lock"

    @property
    def audit(self) -> Path:
        """The folder of the audit's question."""
        return self.folder / "audit"

    def round(self, number: int) -> Path:
        """The folder of a round."""
        return self.folder / "rounds" / f"{number:02d}"

    def model(self, number: int | None) -> Path:
        """The weights after a round; None: of the source."""
        return self.folder / "ckpt" / ("source.pt" if number is None else f"round_{number:02d}.pt")

    def relative(self, path: Path) -> str:
        """A path of the run as the state names it."""
        return path.relative_to(self.folder).as_posix()


def load_run(files: RunFiles) -> tuple[AdaptState, tuple[LabelRow, ...]]:
    """The state of a run and its ledger, brought into agreement where a process ended between the two.

    Raises:
        UserError: it is no run, or one of the files is damaged.
    """
    if not files.state.is_file():
        raise UserError("is no run of vtk adapt", str(files.folder), f"begin with vtk adapt start {files.folder}")
    rows = read_rows(files.labels)
    return settled(state_from_json(_json(files.state), str(files.state)), rows), rows


def save_state(files: RunFiles, state: AdaptState) -> None:
    """Write the state, atomically."""
    write_json(files.state, state_to_json(state))


def read_rows(path: Path) -> tuple[LabelRow, ...]:
    """The rows of a ledger; none where there is no file.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return ()
    rows, line = [], 1
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        for cells in reader:
            line = reader.line_num
            origin = ORIGINS[cells["origin"]]
            rows.append(LabelRow(cells["sample_id"], cells["label"], int(cells["round"]), origin, cells["time"]))
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError("is no row of labels", f"{path}:{line}", "restore the file") from error
    return tuple(rows)


def append_rows(path: Path, rows: Sequence[LabelRow]) -> None:
    """Add rows to a ledger: what it had is written again, unchanged, with them, and takes its place at once."""
    if not rows:
        return
    before = path.read_text(encoding="utf-8") if path.is_file() else csv_text([LABEL_COLUMNS])
    write_text(path, before + csv_text(rows_text(rows)))


def csv_text(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV, each ended by a line feed."""
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def write_classes(files: RunFiles, class_names: Sequence[str]) -> None:
    """Write the class names, in order."""
    write_json(files.classes, list(class_names))


def read_classes(files: RunFiles) -> tuple[str, ...]:
    """The class names of a run; raises `UserError` where the file is missing or damaged."""
    names = _json(files.classes)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("is no list of class names", str(files.classes), "restore the file")
    return tuple(names)


@contextmanager
def held(files: RunFiles) -> Iterator[None]:
    """Hold a run against other processes.

    Raises:
        UserError: another one holds it; its number, machine and start are named.
    """
    note = files.folder / "lock.json"
    with ExitStack() as open_now:
        try:
            open_now.enter_context(lock(files.lock, wait=False))
        except Busy as error:
            what = f"in use by another process{_holder(note)}"
            raise UserError(what, str(files.folder), "wait for it to end") from error
        write_json(note, {"pid": os.getpid(), "host": socket.gethostname(), "since": now()})
        open_now.callback(note.unlink, missing_ok=True)
        yield


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _holder(note: Path) -> str:
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        return f" (process {said['pid']} on {said['host']} since {said['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({error})", str(path), "restore the file, or start anew") from error
