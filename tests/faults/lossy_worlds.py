"""Trainings of `parallel_trainings` some of whose updates are not finite. As a script: one of several processes."""

from __future__ import annotations

import math

from torch import Tensor, nn

from tests.engine import parallel_trainings as trainings
from vtk_cli.engine.loop import Clock

POISONED = 7
"""The sample whose points are NaN in the second epoch; one process has it."""


def poisoned(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
    """The loss is NaN, and so are running statistics."""
    indices, points, targets = batch
    hurt = (indices == POISONED) & (clock.epoch == 1)
    return trainings.simple(model, (indices, points.masked_fill(hurt[:, None], math.nan), targets), clock)


def steep(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
    """The loss is finite, and in the fourth update one row of one gradient is not."""
    return trainings.overflowing(model, batch, clock)


trainings.LOSSES |= {"poisoned": poisoned, "steep": steep}

if __name__ == "__main__":
    trainings.main()
