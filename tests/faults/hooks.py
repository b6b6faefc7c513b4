"""What is done to a command's process before it runs, by name (`forks.py`)."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from vtk_cli import app, files
from vtk_cli.adapt import run_files
from vtk_cli.console import Console
from vtk_cli.data import embedded
from vtk_cli.engine import checkpoint, loop, run_folder
from vtk_cli.engine.plan import Plan
from vtk_cli.engine.sample_names import name_of
from vtk_cli.engine.update import Updater


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


def die_at_file(number: int) -> None:
    """Be killed when the file of this number (from 1), checkpoints left out, is written but not under its name."""
    publish, count = files.publish, 0

    def dying(temporary: Path, path: Path) -> None:
        nonlocal count
        count += 1
        if count == number:
            _die()
        publish(temporary, path)

    files.publish = dying  # type: ignore[attr-defined]


def signal_at(update: int, name: str, times: int) -> None:
    """Get a signal so many times in the update of this number (from 1) of this process."""
    call, count = Updater.__call__, 0

    def signalled(self: Updater, *arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count == update:
            for _ in range(times):
                signal.raise_signal(signal.Signals[name])
        call(self, *arguments, **options)

    Updater.__call__ = signalled  # type: ignore[method-assign]


def hold_at(update: int, held: str, released: str) -> None:
    """Make the file `held` in the update of this number (from 1), and wait for the file `released`."""
    call, count = Updater.__call__, 0

    def holding(self: Updater, *arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count == update:
            Path(held).touch()
            wait_for(released)
        call(self, *arguments, **options)

    Updater.__call__ = holding  # type: ignore[method-assign]


def touch(file: str) -> None:
    """Make the file."""
    Path(file).touch()


def wait_for(file: str) -> None:
    """Begin when the file is there."""
    while not Path(file).exists():
        time.sleep(0.005)


def note_builds(log: str) -> None:
    """A line in `log` for every embedded dataset that is built."""
    for name, build in list(embedded.BUILDERS.items()):
        embedded.BUILDERS[name] = partial(_noted_build, log, name, build)


def _noted_build(log: str, name: str, build: Callable[..., None], folder: Path, **counts: int) -> None:
    with Path(log).open("a", encoding="utf-8") as lines:
        lines.write(f"{name}\n")
    build(folder, **counts)


def die_in_building(begun: str, released: str) -> None:
    """Be killed when an embedded dataset is built but not in its place; before, make a file and wait for another."""
    for name, build in list(embedded.BUILDERS.items()):
        embedded.BUILDERS[name] = partial(_dying_build, begun, released, build)


def _dying_build(begun: str, released: str, build: Callable[..., None], folder: Path, **counts: int) -> None:
    build(folder, **counts)
    Path(begun).touch()
    wait_for(released)
    _die()


def kill_a_worker(update: int) -> None:
    """In the update of this number (from 1), one of the processes that read data is killed."""
    call, count = Updater.__call__, 0

    def killing(self: Updater, *arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count == update:
            multiprocessing.active_children()[0].kill()
        call(self, *arguments, **options)

    Updater.__call__ = killing  # type: ignore[method-assign]


def set_clocks_back(days: float) -> None:
    """The time of day is so many days ago, and goes an hour back whenever somebody looks."""
    looked, real = 0, time.time

    def now() -> float:
        nonlocal looked
        looked += 1
        return real() - 86400 * days - 3600 * looked

    class Past(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(now(), tz)

    time.time = now
    run_folder.datetime = run_files.datetime = Past  # type: ignore[attr-defined]


def note_memory(log: str, every: int) -> None:
    """A line in `log` every so many updates: bytes of this process and of each that it started, and its open files."""
    call, count, page = Updater.__call__, 0, os.sysconf("SC_PAGE_SIZE")

    def resident(process: int | str) -> int:
        return page * int(Path(f"/proc/{process}/statm").read_text().split()[1])

    def noting(self: Updater, *arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count % every == 0:
            children = sorted(child.pid or 0 for child in multiprocessing.active_children())
            sizes = [resident("self"), *map(resident, children)]
            with Path(log).open("a", encoding="utf-8") as lines:
                lines.write(f"{count} {len(list(Path('/proc/self/fd').iterdir()))} {' '.join(map(str, sizes))}\n")
        call(self, *arguments, **options)

    Updater.__call__ = noting  # type: ignore[method-assign]


def tell_when_heard(file: str) -> None:
    """Make a file when the command hears signals."""
    hear = app.prompt_stops

    @contextmanager
    def told() -> Iterator[Any]:
        with hear() as stopped:
            Path(file).touch()
            yield stopped

    app.prompt_stops = told  # type: ignore[attr-defined]


def save_often() -> None:
    """A checkpoint after every update, also where no option says so."""
    build = Plan.__init__

    def built(self: Plan, *arguments: Any, **options: Any) -> None:
        build(self, *arguments, **{**options, "checkpoint_seconds": 0.0})

    Plan.__init__ = built  # type: ignore[method-assign]


def spoil_losses(samples: str, *steps: int) -> None:
    """The losses are NaN in the updates of these numbers (from 1) of trainings whose samples are called like this."""
    call, back, spoiled = Updater.__call__, Updater._backward_one, False

    def called(self: Updater, group: Any, epoch: int, step: int, meter: Any) -> None:
        nonlocal spoiled
        name = name_of(self.culprits.data, int(group[0][0][0]))
        spoiled = step + 1 in steps and re.fullmatch(samples, name) is not None
        call(self, group, epoch, step, meter)

    def backward(self: Updater, loss: Tensor, share: float) -> Tensor:
        return back(self, loss * math.nan if spoiled else loss, share)

    Updater.__call__, Updater._backward_one = called, backward  # type: ignore[method-assign]


def no_space_for(pattern: str, number: int, log: str) -> None:
    """The disk is full from the write of this number (from 1) on to a path that ends like this, which goes to `log`."""
    real, count = files.disk_errors, 0

    @contextmanager
    def full(path: Path) -> Iterator[None]:
        nonlocal count
        count += count >= number or re.search(f"(?:{pattern})$", str(path)) is not None
        with real(path):
            if count == number:
                Path(log).write_text(str(path))
            if count >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            yield

    for module in [*sys.modules.values()]:
        if getattr(module, "disk_errors", None) is real:
            module.disk_errors = full  # type: ignore[attr-defined]
