"""What a search minimises: the moments that a batch of fakes lacks. No real image is read here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from vtk_cli.engine.loop import Clock
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.errors import UserError
from vtk_cli.prune.extractors import Extractor
from vtk_cli.prune.matching import Matched, MomentLoss, MovingAverage
from vtk_cli.prune.search import Search


class NoiseBatches:
    """Batches of noise for `engine.loop.fit`: `(indices, noise)`, noise (B, nz) from N(0, 1) on the CPU.

    What a step sees depends on (seed, epoch, step) alone.

    Args:
        batch_size: B, at least 2.
        nz: length of the noise.
        steps_per_epoch: batches that make an epoch.
        seed: of the noise alone.

    Raises:
        UserError: a batch of fewer than two, which has no variance.
    """

    def __init__(self, batch_size: int, nz: int, steps_per_epoch: int, seed: int) -> None:
        if batch_size < 2:
            what = f"a batch of {batch_size} has no variance to match"
            raise UserError(what, "--batch", "give at least 2")
        self.batch_size, self.nz, self.steps_per_epoch, self.seed = batch_size, nz, steps_per_epoch, seed

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of epoch `epoch` from number `start` on."""
        for step in range(start, self.steps_per_epoch):
            generator = torch.Generator().manual_seed(sample_seed(self.seed, epoch, step))
            first = step * self.batch_size
            indices = torch.arange(first, first + self.batch_size)
            yield indices, torch.randn(self.batch_size, self.nz, generator=generator)


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
        model: the state; the model that `fit` trains.
        extractor: on the model's device.
        loss: against the targets, on the same device.
        optimizer: of `model`; its memory is cleared where an algorithm sets weights back.
    """

    def __init__(
        self, model: MatchedSearch, extractor: Extractor, loss: MomentLoss, optimizer: torch.optim.Optimizer | None
    ) -> None:
        self._model, self._extractor, self._loss, self._optimizer = model, extractor, loss, optimizer
        self._begun: int | None = None
        self.latest: Matched | None = None

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:
        """The loss of a batch `(indices, noise)`."""
        search = self._model.search
        if clock.step != self._begun:  # once an update, however many batches make one
            search.begin_step(clock.step, self._optimizer)
            self._begun = clock.step
        images = cast("Tensor", model(batch[1]))
        self.latest = self._loss(self._extractor(images), self._model.average)
        penalty = search.penalty()
        return self.latest.loss if penalty is None else self.latest.loss + penalty
