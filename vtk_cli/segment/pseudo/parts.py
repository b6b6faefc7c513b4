"""Work on many images, one after another, that may be stopped at any time and is shared among processes.

What is made of an image is a line of JSON, written as soon as it is there, in a file of its process. Coming back, with
however many processes, images that have a line are passed over. Nothing but the line stays of an image in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any
from uuid import uuid4

from vtk_cli.console import Progress
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.signals import StopRequest, stop_requests
from vtk_cli.errors import VtkError
from vtk_cli.files import disk_errors, make_folder

PARTS = "parts"
"""The folder for the lines in that of a stage."""
Make = Callable[[Sequence[int]], Generator[tuple[int, Any]]]
"""From numbers of images, ascending, to each number with what is made of the image: values that JSON can hold."""


@dataclass(frozen=True)
class _Place:
    """Where a line stands."""

    file: Path
    start: int


def make_each(count: int, make: Make, folder: Path, *, world: World, progress: Progress) -> None:
    """Make something of each of `count` images, but of those that have been made before.

    Args:
        count: of images, which are numbered from 0.
        make: called once in each process, with its share of the images; closed where a signal stops it.
        folder: for the lines; seen by all processes.
        world: this process among the others.
        progress: advanced by images.

    Raises:
        Preempted: SIGTERM or SIGUSR1 came; what is finished is kept.
        KeyboardInterrupt: SIGINT came; the same.
        JobError, UserError: what `make` raises, in every process.
    """
    left = world.on_main(lambda: _left(folder, count))
    progress.advance(count - len(left))
    failure: VtkError | OSError | None = None
    with stop_requests() as stop:
        try:
            _write(make, left[world.rank :: world.size], folder, stop, lambda: progress.advance(world.size))
        except (VtkError, OSError) as error:
            failure = error
        outcomes = world.gather((int(stop.signal or 0), failure))
        for number, other in outcomes:
            if other is not None:
                raise other
            if number and stop.signal is None:
                stop.signal = Signals(number)
        stop.raise_if_requested(f"what is finished of {count} images in {folder}")


def made(folder: Path, count: int) -> Iterator[Any]:
    """What was made of each image, in their order, read one after another.

    Raises:
        ValueError: there is nothing of an image.
    """
    places = _places(folder)
    if missing := count - len(places.keys() & set(range(count))):
        raise ValueError(f"{folder}: {missing} of {count} images are not made")
    for index in range(count):
        place = places[index]
        with place.file.open("rb") as stream:
            stream.seek(place.start)
            yield json.loads(stream.readline())[1]


def _left(folder: Path, count: int) -> list[int]:
    make_folder(folder)
    finished = _places(folder)
    return [index for index in range(count) if index not in finished]


def _write(make: Make, indices: Sequence[int], folder: Path, stop: StopRequest, heard: Callable[[], None]) -> None:
    """Write a line for each image until all are made or a signal came."""
    if not indices:
        return
    path = folder / f"{uuid4().hex}.jsonl"
    with disk_errors(path), path.open("w", encoding="utf-8") as stream, closing(make(indices)) as lines:
        for index, value in lines:
            stream.write(json.dumps([index, value], allow_nan=False) + "\n")
            stream.flush()  # a killed process leaves whole lines
            heard()
            if stop.signal is not None:
                break
        os.fsync(stream.fileno())


def _places(folder: Path) -> dict[int, _Place]:
    """The whole lines by the numbers of their images; what was torn by a kill or a full disk is none."""
    places: dict[int, _Place] = {}
    for file in sorted(folder.glob("*.jsonl")):
        start = 0
        with file.open("rb") as stream:
            for line in stream:
                index = _index(line)
                if index is not None:
                    places.setdefault(index, _Place(file, start))
                start += len(line)
    return places


def _index(line: bytes) -> int | None:
    """The number of the image that a line is of; None where it is torn."""
    try:
        index, _ = json.loads(line)
    except (ValueError, TypeError):
        return None
    return index if line.endswith(b"\n") and isinstance(index, int) else None
