"""The state of a job on disk: the newest whole one is found again, whatever happened to the one being written.

A checkpoint is an ordinary `torch.save` file called `step-00000120-<checksum>.pt`. Step, content and checksum appear
together, by one rename; a file whose bytes do not give the checksum in its name is passed over.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import torch

from vtk_cli.console import Console
from vtk_cli.errors import JobError
from vtk_cli.files import disk_errors, publish, sha256_file, temporary_path

_NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{32})\.pt")
"""The step, and the first 32 hexadecimal digits of the content's SHA-256."""

_LARGE = 2**16
"""Bytes that are worth handing to a thread."""


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write `state` as the newest checkpoint and remove all but the newest `keep`.

    Args:
        folder: made if missing; belongs to this job alone.
        step: how far the job is, 0 or more. Checkpoints of later steps are of a future that was given up (they were
            found damaged), and are removed.
        state: tensors, numbers, text, None, and lists, tuples and dicts of them: `weights_only=True` reads it back.
        keep: how many to keep, 1 or more.

    Returns:
        The new file.

    Raises:
        JobError: the disk is full; the earlier checkpoints are intact.
        UserError: the folder may not be written.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"cannot save step {step} and keep {keep}")
    with temporary_path(folder, ".pt") as temporary:
        with disk_errors(folder), temporary.open("wb", buffering=0) as file, ThreadPoolExecutor(1) as thread:
            writer = _HashingWriter(file, thread)
            try:
                torch.save(dict(state), writer)  # type: ignore[arg-type]  # it needs no more than write and flush
            except RuntimeError:
                if writer.failure is None:
                    raise
                raise writer.failure from None  # torch reports that its archive is short, not that the disk is full
        path = folder / f"step-{step:08d}-{writer.checksum()[:32]}.pt"
        publish(temporary, path)
    older = [found for found in _newest_first(folder) if _step(found) < step]
    for old in {*_newest_first(folder)} - {path, *older[: keep - 1]}:
        if old.is_dir() and not old.is_symlink():  # whatever it is, it is no checkpoint
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
    return path


def latest_checkpoint(folder: Path, console: Console) -> tuple[int, dict[str, Any]] | None:
    """The newest whole checkpoint as (step, state), its tensors on the CPU; None if there is none.

    Damaged ones (torn, truncated, with flipped bits) are passed over with a warning; so is what is not a file.

    Raises:
        JobError: a whole checkpoint cannot be read, for it was written by an incompatible torch.
    """
    found = _newest_first(folder)
    for path in found:
        try:
            checksum = sha256_file(path)
        except OSError as error:
            console.warn(f"{path}: cannot be read ({error.strerror}); going back to the checkpoint before it")
            continue
        if not path.stem.endswith(checksum[:32]):
            console.warn(f"{path}: damaged (its checksum is another); going back to the checkpoint before it")
            continue
        return _step(path), _read(path)
    if found:
        console.warn(f"{folder}: no checkpoint there is whole; starting from the beginning")
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a file that somebody made raises has no end
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise JobError(f"{path}: torch {torch.__version__} cannot read it: {told}") from error
    if not isinstance(state, dict):
        raise JobError(f"{path}: is no checkpoint of vtk")
    return state


class _HashingWriter:
    """A file for `torch.save` that sums what passes; keeps the error that torch would replace by its own.

    Large pieces are summed by a thread while they are written: both take about as long.
    """

    def __init__(self, file: IO[bytes], thread: Executor) -> None:
        self._file, self._thread = file, thread
        self._sum = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        if len(data) < _LARGE:
            self._sum.update(data)
            return self._written(data)
        summed = self._thread.submit(self._sum.update, data)
        try:
            return self._written(data)
        finally:
            summed.result()  # torch takes its memory back

    def _written(self, data: bytes) -> int:
        view, done = memoryview(data), 0
        try:
            while done < len(view):  # an unbuffered file may take a part
                done += self._file.write(view[done:])
        except OSError as error:
            self.failure = error
            raise
        return done

    def flush(self) -> None:
        self._file.flush()

    def checksum(self) -> str:
        return self._sum.hexdigest()


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])
