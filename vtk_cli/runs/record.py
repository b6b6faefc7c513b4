"""What a run folder says of itself, read by those who come after it.

A file that is missing or torn is passed over: a run that was killed has told as much as it could.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from socket import gethostname
from typing import Any

from vtk_cli.engine.run_config import RunConfig
from vtk_cli.engine.run_folder import LOG, RECORD, SUMMARY
from vtk_cli.errors import UserError, nearest
from vtk_cli.files import is_alive

RUNS = Path("runs")
"""Where runs are looked for, and where commands put them unless told otherwise."""
METRICS = "metrics.jsonl"

Status = str
FINISHED: frozenset[Status] = frozenset({"done", "failed", "interrupted", "killed"})
"""What nobody works on and nobody is to queue again; `running` and `preempted` are the others."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One sitting of a run.

    Args:
        status: running, done, failed, interrupted, preempted, or killed: it is gone and could not say why.
        message: why it ended, if not by being done.
        started, ended: with a time zone; None where it is not known.
        host: the machine.
    """

    status: Status
    message: str
    started: datetime | None
    ended: datetime | None
    host: str

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        if self.started is None or self.ended is None:
            return None
        return max(0.0, (self.ended - self.started).total_seconds())


@dataclass(frozen=True)
class Run:
    """A run folder.

    Args:
        path: of the folder.
        command: with its verb, `detect train`.
        attempts: its sittings, the last one last.
        seed, device, slurm_job: of the last one.
        argv: the words of the last one.
        versions: package -> version.
        options: every option as resolved.
        summary: what `--json` printed; empty of a run that is not done.
        rows: of `metrics.jsonl`.
    """

    path: Path
    command: str
    attempts: Sequence[Attempt]
    seed: int | None = None
    device: str = ""
    slurm_job: str = ""
    argv: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    options: RunConfig = field(default_factory=lambda: RunConfig("", {}))
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name

    @property
    def last(self) -> Attempt:
        """The last sitting."""
        return self.attempts[-1]

    @property
    def status(self) -> Status:
        """Of the last sitting."""
        return self.last.status

    @property
    def seconds(self) -> float | None:
        """Of all sittings that are known to have ended; None where there is none."""
        known = [attempt.seconds for attempt in self.attempts if attempt.seconds is not None]
        return sum(known) if known else None

    @property
    def log(self) -> Path:
        """What was said, with the time."""
        return self.path / LOG


def find_runs(places: Sequence[Path]) -> list[Run]:
    """Every run in the folders `places`, which may be run folders themselves; the one started last comes last.

    What lies inside a run folder is part of it, and links to folders are not followed.

    Raises:
        UserError: a place is no folder.
    """
    found: dict[Path, Run] = {}
    for place in places:
        if not place.is_dir():
            raise UserError("is no folder", str(place), "name run folders, or folders of run folders")
        for folder in _run_folders(place):
            found.setdefault(folder.resolve(), read_run(folder))
    return sorted(found.values(), key=lambda run: (_when(run.attempts[0]), str(run.path)))


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
        UserError: the folder holds no run, or its `run.json` cannot be read.
    """
    record = _json(folder / RECORD)
    if record is None:
        raise UserError(*_no_run(folder))
    options = RunConfig.read(folder)
    command = str(record.get("command") or (options.command if options else "?"))
    earlier = [_attempt(past) for past in record.get("history") or () if isinstance(past, dict)]
    return Run(
        folder,
        command,
        (*earlier, _attempt(record)),
        seed=record["seed"] if isinstance(record.get("seed"), int) else None,
        device=str(record.get("device") or ""),
        slurm_job=str(record.get("slurm_job") or ""),
        argv=[str(word) for word in record.get("argv") or ()],
        versions={str(key): str(value) for key, value in (record.get("versions") or {}).items() if value},
        options=options or RunConfig(command, {}),
        summary=_json(folder / SUMMARY) or {},
        rows=_rows(folder / METRICS),
    )


def _run_folders(place: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(place):
        if RECORD in files:
            below.clear()
            yield Path(folder)
        else:
            below[:] = sorted(name for name in below if not name.startswith("."))


def _no_run(folder: Path) -> tuple[str, str, str]:
    if (folder / RECORD).is_file():
        return "cannot be read", str(folder / RECORD), "the run's other files may be whole; start it again to mend it"
    runs = [path.parent for path in RUNS.glob(f"*/*/{RECORD}")]
    close = nearest(str(folder), [str(path) for path in runs])
    return "holds no run", str(folder), close or "name the folder of a run; `vtk runs list` shows them"


def _attempt(record: Mapping[str, Any]) -> Attempt:
    status, host = str(record.get("status") or "killed"), str(record.get("host") or "")
    pid = record.get("pid")
    if status == "running" and host == gethostname() and isinstance(pid, int) and not is_alive(pid):
        status = "killed"
    message = str(record.get("message") or "")
    return Attempt(status, message, _time(record.get("started")), _time(record.get("ended")), host)


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _when(attempt: Attempt) -> float:
    return attempt.started.timestamp() if attempt.started is not None else 0.0


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _rows(path: Path) -> list[Row]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    rows: list[Row] = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed
        if isinstance(row, dict):
            rows.append(row)
    return rows
