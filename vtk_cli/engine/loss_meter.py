"""The training loss: left on the device while it computes, read in bulk, checked and averaged."""

from __future__ import annotations

import math
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
    """

    world: World
    epoch: Mean = field(default_factory=Mean)
    window: Mean = field(default_factory=Mean)
    latest: float = math.nan
    _waiting: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)

    def add(self, update: int, loss: Tensor, indices: Tensor) -> None:
        """Note a batch's mean loss, a scalar left on its device, without waiting for it.

        Args:
            update: the number of the optimiser's update that the batch is part of.
            loss: scalar, detached.
            indices: (B,) the batch's samples.
        """
        self._waiting.append((update, loss, indices))

    def read(self) -> None:
        """Read the losses noted since the last time; waits for the device once.

        Raises:
            JobError: one of them is NaN or infinite, in whichever process; it names the step and the samples.
        """
        if not self._waiting:
            return
        losses = torch.stack([loss for _, loss, _ in self._waiting])
        own = losses
        if self.world.size > 1:
            losses = losses.clone()
            dist.all_reduce(losses)
            losses /= self.world.size
        values = losses.tolist()
        for number, value in enumerate(values):
            if not math.isfinite(value):
                self._fail(number, own[number].item())
            count = len(self._waiting[number][2])
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

    def _fail(self, number: int, own_loss: float) -> None:
        update, _, indices = self._waiting[number]
        mine = (own_loss, indices.tolist())
        guilty = [found for found in self.world.gather(mine) if not math.isfinite(found[0])] or [mine]
        loss, samples = guilty[0]
        raise JobError(
            f"the loss is {loss} at step {update}, in the batch of samples {samples}; earlier checkpoints are kept;"
            " try a lower learning rate, gradient clipping, or bf16 or fp32 in place of fp16"
        )
