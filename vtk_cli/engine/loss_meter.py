"""The training loss: left on the device while it computes, read in bulk, checked and averaged."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vtk_cli.engine.distributed import World
from vtk_cli.errors import JobError


@dataclass
class Mean:
    """A mean over samples, kept as its sum."""

    total: float = 0.0
    samples: int = 0

    @property
    def value(self) -> float:
        """The mean; NaN of no samples."""
        return self.total / self.samples if self.samples else math.nan


@dataclass
class LossMeter:
    """The mean loss of the epoch, of the updates since the last log line, and the latest.

    Args:
        world: this process among the others; the losses are averaged over all of them.
        branches: names of the losses that make up a batch's loss, for the error; empty for nameless ones.
    """

    world: World
    branches: tuple[str, ...] = ()
    epoch: Mean = field(default_factory=Mean)
    window: Mean = field(default_factory=Mean)
    latest: float = math.nan
    _waiting: list[tuple[int, Sequence[Tensor], Tensor]] = field(default_factory=list)

    def add(self, update: int, losses: Sequence[Tensor], indices: Tensor) -> None:
        """Note the losses whose sum is a batch's mean loss, left on their device, without waiting for them.

        Args:
            update: the number of the optimiser's update that the batch is part of.
            losses: scalars, detached.
            indices: (B,) the batch's samples.
        """
        self._waiting.append((update, losses, indices))

    def read(self) -> None:
        """Read the losses noted since the last time; waits for the device once.

        Raises:
            JobError: one of them is NaN or infinite, in whichever process; it names the step, the samples and the
                branches.
        """
        if not self._waiting:
            return
        losses = torch.stack([functools.reduce(torch.add, parts) for _, parts, _ in self._waiting])
        if self.world.size > 1:
            dist.all_reduce(losses)
            losses /= self.world.size
        values = losses.tolist()
        for number, value in enumerate(values):
            if not math.isfinite(value):
                self._fail(number)
            count = len(self._waiting[number][2]) * self.world.size
            for mean in (self.epoch, self.window):
                mean.total += value * count
                mean.samples += count
        self.latest = values[-1]
        self._waiting.clear()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; everything noted must have been read."""
        return {"epoch": asdict(self.epoch), "window": asdict(self.window), "latest": self.latest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.epoch, self.window, self.latest = Mean(**state["epoch"]), Mean(**state["window"]), state["latest"]

    def _fail(self, number: int) -> None:
        update, parts, indices = self._waiting[number]
        mine = ([part.item() for part in parts], indices.tolist())
        guilty = [found for found in self.world.gather(mine) if not math.isfinite(sum(found[0]))] or [mine]
        losses, samples = guilty[0]
        named = zip(self.branches, losses, strict=True) if len(self.branches) == len(losses) else ()
        branches = " and ".join(name for name, loss in named if not math.isfinite(loss))
        raise JobError(
            f"the loss{f' of {branches}' if branches else ''} is {sum(losses)} at step {update},"
            f" in the batch of samples {samples}; earlier checkpoints are kept;"
            " try a lower learning rate, gradient clipping, or bf16 or fp32 in place of fp16"
        )
