"""Batches of images as bytes, made ready for networks on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from vtk_cli.engine.batches import Batches
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.sample_names import name_of
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.search.batch_augmentation import BatchAugmentation
from vtk_cli.search.treatments import Pixels

_AUGMENT = 0x617567


class NetworkBatches:
    """Batches of bytes, made ready for networks on the device.

    Args:
        batches: `(indices, images, targets)`, images uint8 (B, 3, S, S).
        pixels: what networks see.
        augmentation: what is done to a batch.
        world: this process, on whose device it is done.
        seed: of the draws.
        broken: the reasons by index, of files found broken before.
    """

    def __init__(
        self,
        batches: Batches,
        pixels: Pixels,
        augmentation: BatchAugmentation,
        *,
        world: World,
        seed: int,
        broken: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self._batches, self._pixels, self._augmentation = batches, pixels, augmentation
        self._world, self._seed, self._broken = world, seed, broken

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._batches.steps_per_epoch

    @property
    def broken(self) -> dict[int, str]:
        """The reasons by index, of the files found broken so far in this process."""
        return {**self._broken, **getattr(self._batches, "broken", {})}

    def name_of(self, index: int) -> str:
        """What a sample is called."""
        return name_of(self._batches, index)

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of an epoch from number `start` on, each `(indices, images, targets)`."""
        own = sample_seed(self._seed, 0, _AUGMENT)  # all processes draw for the whole batch
        for place, (indices, images, targets) in enumerate(self._batches.epoch(epoch, start), start):
            generator = torch.Generator().manual_seed(sample_seed(own, epoch, place))
            seen = self._ready(images.to(self._world.device, non_blocking=True), generator)
            yield indices, seen, targets.to(self._world.device, non_blocking=True)

    def _ready(self, images: Tensor, generator: torch.Generator) -> Tensor:
        done, share = self._augmentation, (self._world.rank, self._world.size)
        coloured = done.lit(done.moved(images, generator, share).float() / 255, generator, share)
        return done.holed(self._pixels.seen(coloured), generator, share)

    def close(self) -> None:
        """End the worker processes, where there are any."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
