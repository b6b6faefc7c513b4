"""What a search minimises: the moments that a batch of fakes lacks. No real image is read here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vtk_cli.engine.loop import Clock
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.weights_together import weights_together
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.errors import UserError
from vtk_cli.prune.extractors import Extractor
from vtk_cli.prune.matching import Matched, MomentLoss, MovingAverage
from vtk_cli.prune.search import Search


class NoiseBatches:
    """Batches of noise for `engine.loop.fit`: `(indices, noise)`, noise (B, nz) from N(0, 1) on the CPU.

    What a step sees depends on (seed, epoch, step) alone; several processes see each a part of it.

    Args:
        batch_size: B, at least 2, over all processes.
        nz: length of the noise.
        steps_per_epoch: batches that make an epoch.
        seed: of the noise alone.
        world: this process among those that share the batches; None: it is alone.

    Raises:
        UserError: a batch of fewer than two, which has no variance, or of fewer than there are processes.
    """

    def __init__(self, batch_size: int, nz: int, steps_per_epoch: int, seed: int, world: World | None = None) -> None:
        if batch_size < 2:
            what = f"a batch of {batch_size} has no variance to match"
            raise UserError(what, "--batch", "give at least 2")
        self.batch_size, self.nz, self.steps_per_epoch, self.seed = batch_size, nz, steps_per_epoch, seed
        rank, size = (0, 1) if world is None else (world.rank, world.size)
        if batch_size < size:
            raise UserError(f"{size} processes cannot share a batch of {batch_size}", "--batch", f"give {size} or more")
        self._own = slice(batch_size * rank // size, batch_size * (rank + 1) // size)

    def name_of(self, index: int) -> str:
        """Noise has no name but its place in the epoch."""
        return f"noise {index}"

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of epoch `epoch` from number `start` on."""
        for step in range(start, self.steps_per_epoch):
            generator = torch.Generator().manual_seed(sample_seed(self.seed, epoch, step))
            first = step * self.batch_size
            indices = torch.arange(first, first + self.batch_size)
            yield indices[self._own], torch.randn(self.batch_size, self.nz, generator=generator)[self._own]


class MatchedSearch(nn.Module):
    """All the state of a search: the generator on its way, and the moving average of what its fakes lack."""

    def __init__(self, search: Search, average: MovingAverage) -> None:
        super().__init__()
        self.search = search
        self.average = average

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, nz) -> images (B, C, R, R) in [-1, 1]."""
        images: Tensor = self.search(noise)
        return images


class MatchingObjective:
    """The loss of a search for `engine.loop.fit`; `latest` is what the last batch lacked.

    Args:
        extractor: on the model's device.
        loss: against the targets, on the same device.
        optimizer: of `model`; its memory is cleared where an algorithm sets weights back.
        world: this process among those that share the batches; None: it is alone.
    """

    def __init__(
        self,
        extractor: Extractor,
        loss: MomentLoss,
        optimizer: torch.optim.Optimizer | None,
        world: World | None = None,
    ) -> None:
        self._extractor, self._loss, self._optimizer, self._world = extractor, loss, optimizer, world
        self._begun: int | None = None
        self.latest: Matched | None = None

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:
        """The loss of a batch `(indices, noise)`; `model`: a `MatchedSearch`, perhaps wrapped."""
        held = cast("MatchedSearch", model.module if isinstance(model, DistributedDataParallel) else model)
        search = held.search
        if clock.step != self._begun:  # once an update, however many batches make one
            with weights_together(model):
                search.begin_step(clock.step, self._optimizer)
            self._begun = clock.step
        images = cast("Tensor", model(batch[1]))
        self.latest = self._loss(self._extractor(images), held.average, self._world)
        penalty = search.penalty()  # of weights that stay together from a forward pass to its backward pass
        return self.latest.loss if penalty is None else self.latest.loss + penalty
