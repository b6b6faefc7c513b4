"""The training loss: left on the device while it computes, read in bulk, checked and averaged."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from vtk_cli.engine.nonfinite import ADVICE, Computed, Culprits, batch_loss
from vtk_cli.engine.processes.distributed import World
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
        culprits: says whose loss is not finite, for the error; None: by numbers alone.
        advice: of the error.
    """

    world: World
    culprits: Culprits | None = None
    advice: str = ADVICE
    epoch: Mean = field(default_factory=Mean)
    window: Mean = field(default_factory=Mean)
    latest: float = math.nan
    _waiting: list[tuple[int, Computed]] = field(default_factory=list)

    def add(self, update: int, computed: Computed) -> None:
        """Note the losses of a batch, left on their device, without waiting for them.

        Args:
            update: the number of the optimiser's update that the batch is part of.
            computed: its losses, detached, and its samples.
        """
        self._waiting.append((update, computed))

    def read(self) -> None:
        """Read the losses noted since the last time; waits for the device once.

        Raises:
            JobError: one of them is NaN or infinite, in whichever process; it names the step, the samples and the
                branches.
        """
        if not self._waiting:
            return
        losses = torch.stack([batch_loss(parts) for _, (parts, _) in self._waiting])
        if self.world.size > 1:
            dist.all_reduce(losses)
            losses /= self.world.size
        values = losses.tolist()
        for number, value in enumerate(values):
            update, (parts, indices) = self._waiting[number]
            if not math.isfinite(value):
                culprits = self.culprits or Culprits(self.world)
                raise JobError(f"{culprits.of_loss(update, (parts, indices))}; {self.advice}")
            count = len(indices) * self.world.size
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
