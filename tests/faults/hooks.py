"""What is done to a command's process before it runs, by name (`forks.py`)."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.engine import checkpoint, loop
from vtk_cli.engine.plan import Plan


def note_checkpoints(log: str) -> None:
    """A line in `log` for every checkpoint that was reported saved, and for every place to go on from."""
    saves, finds = loop.save_checkpoint, loop.latest_checkpoint

    def saved(folder: Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
        path = saves(folder, step, state, keep)
        _note(log, "saved", step, folder)
        return path

    def found(folder: Path, console: Console) -> tuple[int, dict[str, Any]] | None:
        newest = finds(folder, console)
        _note(log, "found", -1 if newest is None else newest[0], folder)
        return newest

    loop.save_checkpoint, loop.latest_checkpoint = saved, found  # type: ignore[attr-defined]


def _note(log: str, word: str, step: int, folder: Path) -> None:
    with Path(log).open("a", encoding="utf-8") as lines:
        lines.write(f"{word} {step} {folder.absolute()}\n")


def die_in_writing(number: int) -> None:
    """Be killed when the checkpoint of this number (from 1) is written in part."""
    write = checkpoint._HashingWriter._written
    writers: list[object] = []

    def torn(self: Any, data: bytes) -> int:
        if self not in writers:
            writers.append(self)
        if len(writers) == number and len(data) > 1:
            write(self, memoryview(data)[: len(data) // 2])
            _die()
        return write(self, data)

    checkpoint._HashingWriter._written = torn  # type: ignore[method-assign]


def die_before_publishing(number: int) -> None:
    """Be killed when the checkpoint of this number (from 1) is written, but not under its name."""
    _at_publishing(number, before=True)


def die_before_removing(number: int) -> None:
    """Be killed when the checkpoint of this number (from 1) is there, and the old ones are too."""
    _at_publishing(number, before=False)


def _at_publishing(number: int, *, before: bool) -> None:
    publish, count = checkpoint.publish, 0

    def dying(temporary: Path, path: Path) -> None:
        nonlocal count
        count += 1
        if count == number and before:
            _die()
        publish(temporary, path)
        if count == number:
            _die()

    checkpoint.publish = dying  # type: ignore[attr-defined]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def save_often() -> None:
    """A checkpoint after every update, also where no option says so."""
    build = Plan.__init__

    def built(self: Plan, *arguments: Any, **options: Any) -> None:
        build(self, *arguments, **{**options, "checkpoint_seconds": 0.0})

    Plan.__init__ = built  # type: ignore[method-assign]
