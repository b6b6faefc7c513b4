"""Work on many images is kept line by line, whoever stops it and however often."""

from __future__ import annotations

import signal
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import JobError, Preempted
from vtk_cli.segment.pseudo.parts import made, make_each

ALONE = World(0, 1, 0, torch.device("cpu"))
COUNT = 7


class Squares:
    """Makes the square of a number, and remembers for which; does something before it makes that of `at`."""

    def __init__(self, at: int = -1, before: Any = None) -> None:
        self.asked: list[int] = []
        self._at, self._before = at, before

    def __call__(self, indices: Sequence[int]) -> Generator[tuple[int, Any]]:
        for index in indices:
            if index == self._at:
                self._before()
            self.asked.append(index)
            yield index, index**2


def run(make: Squares, folder: Path, world: World = ALONE) -> None:
    with Console(quiet=True).progress("squares", COUNT) as progress:
        make_each(COUNT, make, folder, world=world, progress=progress)


def test_what_is_made_is_read_back_in_the_order_of_the_images(tmp_path: Path) -> None:
    run(Squares(), tmp_path)
    assert list(made(tmp_path, COUNT)) == [index**2 for index in range(COUNT)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_it_after_the_image_and_the_rest_is_made_later(tmp_path: Path, number: signal.Signals) -> None:
    stopped = Squares(3, lambda: signal.raise_signal(number))
    with pytest.raises(Preempted, match="what is finished"):
        run(stopped, tmp_path)
    rest = Squares()
    run(rest, tmp_path)
    assert stopped.asked == [0, 1, 2, 3]
    assert rest.asked == [4, 5, 6]
    assert list(made(tmp_path, COUNT)) == [index**2 for index in range(COUNT)]


def test_a_person_who_interrupts_keeps_what_is_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="run the same command to go on"):
        run(Squares(2, lambda: signal.raise_signal(signal.SIGINT)), tmp_path)
    rest = Squares()
    run(rest, tmp_path)
    assert rest.asked == [3, 4, 5, 6]


def test_a_line_that_was_torn_is_made_again(tmp_path: Path) -> None:
    run(Squares(), tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_text(file.read_text()[:-3])
    again = Squares()
    run(again, tmp_path)
    assert again.asked == [COUNT - 1]
    assert list(made(tmp_path, COUNT))[-1] == (COUNT - 1) ** 2


def test_a_failure_is_raised_and_nothing_of_what_is_finished_is_lost(tmp_path: Path) -> None:
    def fail() -> None:
        raise JobError("the disk is full")

    with pytest.raises(JobError, match="the disk is full"):
        run(Squares(5, fail), tmp_path)
    rest = Squares()
    run(rest, tmp_path)
    assert rest.asked == [5, 6]


def test_reading_before_all_is_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        run(Squares(1, lambda: signal.raise_signal(signal.SIGTERM)), tmp_path)
    with pytest.raises(ValueError, match="5 of 7 images are not made"):
        list(made(tmp_path, COUNT))
