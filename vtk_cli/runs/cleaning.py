"""What of finished runs only takes room, and its removal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.engine.run_folder import LOCK
from vtk_cli.files import Busy, disk_errors, lock
from vtk_cli.runs.record import FINISHED, Run

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Removal:
    """A folder that may go.

    Args:
        run: whose it is.
        folder: a folder of checkpoints of a run that is done, or the whole run.
        size: bytes in it.
    """

    run: Run
    folder: Path
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the run is left."""
        return self.folder == self.run.path


def removals(runs: Sequence[Run], *, failed: bool, older_than_days: float) -> list[Removal]:
    """What may go: the checkpoints of runs that are done, and with `failed` whole runs that came to nothing.

    A run that is at work, or that a scheduler may queue again, keeps everything; so does one that ended a shorter time
    ago than `older_than_days`.
    """
    found = []
    for run in runs:
        if run.status not in FINISHED or _age_in_days(run) < older_than_days:
            continue
        if run.status == "done":
            found += [Removal(run, folder, _bytes_in(folder)) for folder in _checkpoint_folders(run.path)]
        elif failed:
            found.append(Removal(run, run.path, _bytes_in(run.path)))
    return found


def remove(removal: Removal) -> bool:
    """Remove one; False where a process has taken the run up again, which then keeps everything.

    Raises:
        UserError: the folder may not be changed.
    """
    with ExitStack() as held:
        try:
            held.enter_context(lock(removal.run.path / LOCK, wait=False))
        except Busy:
            return False
        with disk_errors(removal.folder):
            shutil.rmtree(removal.folder)
    return True


def _checkpoint_folders(folder: Path) -> Iterator[Path]:
    """Also those of a run's stages, `teacher/checkpoints`."""
    for path in sorted(folder.rglob(CHECKPOINTS)):
        if path.is_dir() and not path.is_symlink():
            yield path


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
    return total


def _age_in_days(run: Run) -> float:
    when = run.last.ended or run.last.started
    return float("inf") if when is None else (time.time() - when.timestamp()) / 86400
