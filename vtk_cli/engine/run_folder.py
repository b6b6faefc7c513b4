"""The folder that holds everything about one run, owned by one process at a time.

    config.toml    everything resolved; `vtk <command> --config config.toml` repeats the run
    run.json       how it was started, on what, and how it ended
    log.txt        what was said, with the time
    summary.json   the result, exactly what `--json` prints
    checkpoints/ plots/
    slurm/         the jobs that were submitted for it

Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

import vtk_cli
from vtk_cli.console import Console
from vtk_cli.engine.run_config import RunConfig
from vtk_cli.errors import Preempted, Stopped, UserError, VtkError
from vtk_cli.files import TEMPORARY_PREFIX, disk_errors, lock, make_folder, write_json, write_text
from vtk_cli.options import RUN_CONFIG

LOCK, RECORD, LOG, SUMMARY = ".lock", "run.json", "log.txt", "summary.json"
SLURM = "slurm"
"""The folder in a run's folder for what `vtk slurm` keeps of its jobs; it may be there before the run."""
_ATTEMPT_FIELDS = ("status", "message", "started", "ended", "argv", "host", "pid", "slurm_job", "device", "versions")


class RunFolder:
    """A run's folder. Made by `RunFolder.open`, or by `RunFolder.follow` in the other processes of the same run."""

    def __init__(self, path: Path, record: dict[str, Any] | None) -> None:
        self.path = path
        self._record = record

    @property
    def checkpoints(self) -> Path:
        """The folder for the states from which the job goes on."""
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        """The folder for pictures."""
        return self.path / "plots"

    @classmethod
    @contextmanager
    def open(
        cls,
        command: str,
        name: str,
        *,
        config: Mapping[str, object],
        out: Path | None,
        console: Console,
        seed: int,
        device: str,
        may_change: Collection[str] = (),
    ) -> Iterator[RunFolder]:
        """Own the run's folder while the context lasts: a new one, or that of the same run to go on with.

        Args:
            command: the subcommand, `train`.
            name: what the default folder is called after its date: `runs/train/2025-01-31-NAME`. When a run with
                another configuration is there already, the next free `NAME-2`, `NAME-3` ... is taken.
            config: every option as resolved; None is left out, a path is written as text, a mapping is a table.
            out: the folder, when the user chose one.
            console: its notes and warnings go to `log.txt` too while the context lasts.
            seed: the run's seed, for the record.
            device: the run's device, for the record.
            may_change: options that may differ from the earlier run in the folder, `attack.steps` for a nested one.

        A run that ends in a `UserError` before it made anything leaves no folder behind.

        Raises:
            UserError: `out` holds another run or foreign files, or another process owns the folder.
            JobError: the disk is full.
        """
        wanted = RunConfig.of(command, config)
        may_change = {*may_change, "out"}  # the folder is what it is, however its path is written
        with ExitStack() as stack:
            made: list[Path] = []
            if out is None:
                path = _own_default(stack, name, wanted, may_change, made)
            else:
                path = _own_chosen(stack, out, wanted, may_change, made)
            _remove_leftovers(path)
            is_new = _read_record(path) is None
            record = _new_record(command, seed, device, _read_record(path))
            run = cls(path, record)
            write_text(path / RUN_CONFIG, wanted.text())
            run._write_record()
            stack.enter_context(console.log_to(path / LOG))
            console.detail(f"{'resumed' if record['history'] else 'started'}: {' '.join(sys.argv)}")
            try:
                yield run
            except UserError as error:
                run._leave(error, console)
                if is_new:
                    _remove_if_bare(path, made)
                raise
            except BaseException as error:
                run._leave(error, console)
                raise
            if run._record is not None and run._record["status"] == "running":
                run._end("done", None)

    @classmethod
    def follow(cls, path: Path) -> RunFolder:
        """The folder as the other processes of a distributed run see it: its first process owns it and writes it."""
        return cls(path, None)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json` and mark the run as done.

        Raises:
            ValueError: `summary` holds NaN or infinity, which JSON cannot.
        """
        if self._record is not None:
            write_json(self.path / SUMMARY, summary)
            self._end("done", None)

    def _leave(self, error: BaseException, console: Console) -> None:
        if self._record is None or self._record["status"] == "done":
            return
        status = "failed"
        if isinstance(error, Preempted | Stopped):
            status = "preempted"
        elif isinstance(error, KeyboardInterrupt):
            status = "interrupted"
        message = str(error) or type(error).__name__
        with suppress(VtkError, OSError):  # on a full disk the first error is the one to hear
            self._end(status, message)
            console.detail(f"{status}: {message}")

    def _end(self, status: str, message: str | None) -> None:
        if self._record is not None:
            self._record |= {"status": status, "message": message, "ended": _now()}
            self._write_record()

    def _write_record(self) -> None:
        write_json(self.path / RECORD, self._record)


def _own_chosen(stack: ExitStack, out: Path, wanted: RunConfig, may_change: Collection[str], made: list[Path]) -> Path:
    """Own the folder that the user chose, or say why it cannot be; `made` gets the folders that are new."""
    _make(out, made)
    strangers = _strangers(out)
    if strangers:
        raise UserError(
            f"the folder is not empty and holds no run of vtk (it holds {', '.join(sorted(strangers)[:3])})",
            str(out),
            "choose a new or an empty folder for --out",
        )
    stack.enter_context(_owned(out))
    earlier = RunConfig.read(out)
    if earlier is None:
        return out
    if earlier.command != wanted.command:
        what = f"the folder holds a run of `vtk {earlier.command}`, not of `vtk {wanted.command}`"
        raise UserError(what, str(out), "choose another --out")
    changes = {key: change for key, change in wanted.changes_from(earlier).items() if key not in may_change}
    if changes:
        listed = ", ".join(f"{key}: {old} -> {new}" for key, (old, new) in changes.items())
        raise UserError(
            f"the folder holds a run with other options ({listed})",
            str(out),
            "choose another --out, or the old options to go on with that run",
        )
    return out


def _own_default(stack: ExitStack, name: str, wanted: RunConfig, may_change: Collection[str], made: list[Path]) -> Path:
    """Own the first of `runs/COMMAND/DATE-NAME`, `...-2`, `...-3` that is free or holds this very run."""
    base = Path("runs", file_name(wanted.command), f"{date.today().isoformat()}-{file_name(name)}")
    for number in count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if not _may_use(path, wanted, may_change):
            continue
        _make(path, made)
        with ExitStack() as attempt:
            attempt.enter_context(_owned(path))
            if _may_use(path, wanted, may_change):  # another process may have been quicker
                stack.push(attempt.pop_all())
                return path
    raise AssertionError("unreachable: the numbers do not end")


def _may_use(path: Path, wanted: RunConfig, may_change: Collection[str]) -> bool:
    if not path.exists():
        return True
    if not path.is_dir() or _strangers(path):
        return False
    earlier = RunConfig.read(path)
    if earlier is None:
        return True
    return earlier.command == wanted.command and wanted.changes_from(earlier).keys() <= set(may_change)


def _make(path: Path, made: list[Path]) -> None:
    with disk_errors(path):
        if path.exists() and not path.is_dir():
            raise UserError("is a file, not a folder", str(path), "choose another --out")
        made.extend(folder for folder in (path, *path.parents) if not folder.exists())
    make_folder(path)


def _owned(path: Path) -> AbstractContextManager[None]:
    holder = _read_record(path) or {}
    who = f" (process {holder['pid']} on {holder['host']})" if holder.get("status") == "running" else ""
    return lock(path / LOCK, wait=False, busy=f"this run folder is in use by another process{who}")


def _strangers(path: Path) -> list[str]:
    """What in a folder keeps us from writing there: its entries, unless its `config.toml` says that they are ours."""
    if RunConfig.read(path) is not None:
        return []
    ours = {LOCK, LOG, SLURM}  # what a run killed at its very start leaves, and what may come before it
    return [
        entry.name for entry in path.iterdir() if entry.name not in ours and not entry.name.startswith(TEMPORARY_PREFIX)
    ]


def file_name(text: str) -> str:
    """`text` as the name of a file."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or "run"


def _remove_leftovers(path: Path) -> None:
    """Remove what writers that were killed left behind; the lock is ours, so nobody is writing them."""
    for leftover in [*path.rglob(f"{TEMPORARY_PREFIX}*")]:
        if leftover.is_relative_to(path / SLURM):
            continue  # the lock is not of those who write there
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _remove_if_bare(path: Path, made: list[Path]) -> None:
    """Remove a run's own records where there is nothing else, and of the folders those that were made for it."""
    entries = [entry for entry in path.iterdir() if entry.name != SLURM]
    if not {entry.name for entry in entries} <= {LOCK, LOG, RUN_CONFIG, RECORD}:
        return
    with suppress(OSError):
        for entry in entries:
            entry.unlink()
        for folder in made:
            folder.rmdir()


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _new_record(command: str, seed: int, device: str, earlier: dict[str, Any] | None) -> dict[str, Any]:
    history: list[dict[str, Any]] = []
    if earlier is not None:
        last = {field: earlier.get(field) for field in _ATTEMPT_FIELDS}
        if last["status"] == "running":  # the lock was free: that process is gone and could not say why
            last["status"] = "killed"
        history = [*earlier.get("history", []), last]
    return {
        "command": command,
        "status": "running",
        "message": None,
        "started": _now(),
        "ended": None,
        "argv": sys.argv,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "device": device,
        "seed": seed,
        "versions": {"python": platform.python_version(), "vtk": vtk_cli.__version__}
        | {package: _version(package) for package in ("torch", "timm", "numpy")},
        "history": history,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
