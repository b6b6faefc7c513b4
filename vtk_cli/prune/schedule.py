"""How the learning rate of a search goes, update by update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch.optim.lr_scheduler import LambdaLR

ScheduleName = Literal["cosine", "constant", "cosine-10"]
PERIOD = 10
"""Of the published code, which restarts nothing: its rate falls for ten steps and rises for ten."""


class UpdateSchedule:
    """A factor on the learning rate that depends on the updates made; the loop's `Scheduler`.

    Args:
        optimizer: its rates now are the highest.
        name: `cosine`: (1 + cos(pi t / T)) / 2; `constant`: 1; `cosine-10`: (1 + cos(pi t / 10)) / 2, on and on.
        updates: in all; T where it falls once.
        restarts: how often it starts again, after equal times T.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, name: ScheduleName, updates: int, restarts: int = 0) -> None:
        self._schedule = LambdaLR(optimizer, factor_of(name, updates, restarts))
        self.state_dict, self.load_state_dict = self._schedule.state_dict, self._schedule.load_state_dict

    def step(self, epoch: int) -> None:
        """Nothing happens between epochs."""

    def step_update(self, num_updates: int) -> None:  # noqa: ARG002
        """One update was made."""
        self._schedule.step()


def factor_of(name: ScheduleName, updates: int, restarts: int = 0) -> Callable[[int], float]:
    """The factor by the number of updates made; see `UpdateSchedule`."""
    if name == "constant":
        return lambda _: 1.0
    if name == "cosine-10":
        return lambda made: _cosine(made / PERIOD)
    period = updates // (restarts + 1)

    def factor(made: int) -> float:
        since = made - min(made // period, restarts) * period
        return _cosine(min(since / period, 1.0))

    return factor


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def stretches(steps: int, every: int) -> tuple[int, int]:
    """A search of `steps` updates in stretches of about `every`: (how many, updates in each).

    The product is `steps` where a length between half of `every` and all of it divides them, else a little more.
    """
    longest = min(steps, every)
    for length in range(longest, longest // 2, -1):
        if steps % length == 0:
            return steps // length, length
    count = -(-steps // longest)
    return count, -(-steps // count)
