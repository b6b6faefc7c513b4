"""`vtk search` as a user runs it, in this process, on settings so small that a verb takes about a second."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file

from tests.command_line import Said

TRAINING = ("--epochs", "2", "--device", "cpu")
SCORE = ("--draws", "1", "--bn-images", "64", "--val-images", "60")
EVOLUTION = (
    *("--population", "6", "--generations", "3", "--parents", "3"),
    *("--mutations", "3", "--crossovers", "2"),
)
SEARCH = (*TRAINING, *SCORE, *EVOLUTION, "--retrain-epochs", "2")


Vtk = Callable[..., Said]


def tree(folder: Path) -> dict[str, int]:
    """Every file below a folder, and when it was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()
    }


def same_weights(first: Path, second: Path) -> bool:
    """Whether two files hold the same tensors, bit for bit."""
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@contextmanager
def calls_of(place: type, method: str, act: Callable[[int], None] = lambda _number: None) -> Iterator[list[Any]]:
    """Note the arguments of every call of a method; `act` hears the number of the call, from 1, before it is made."""
    made: list[Any] = []
    real = getattr(place, method)

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        made.append(arguments)
        act(len(made))
        return real(self, *arguments, **options)

    with mock.patch.object(place, method, noted):
        yield made


def terminated_at(call: int) -> Callable[[int], None]:
    """For `calls_of`: this process gets SIGTERM in that call."""

    def act(number: int) -> None:
        if number == call:
            os.kill(os.getpid(), signal.SIGTERM)

    return act
