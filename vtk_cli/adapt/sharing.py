"""How processes share the batches of a stage, and whose loss it is: that of the whole batch, in each of them.

A question is a few images, and a stage may learn from as few: a batch is shared as evenly as it can be, and one that is
too small for all is everybody's own. Losses here are not all means over samples (information maximisation, pairs of
predicted losses); so the processes exchange what the network says of their images, and each has the loss of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vtk_cli.adapt.images import DomainImages
from vtk_cli.engine.batches import EpochOrder
from vtk_cli.engine.epochs import close
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.whole_batch import gathered
from vtk_cli.engine.sample_names import name_of
from vtk_cli.engine.update import Clock, gradients_stay_here


@dataclass(frozen=True)
class Sharing:
    """How a batch is shared.

    Args:
        world: this process among the others; None: it is alone.
        fewest: images that a process must have; batch normalisation in each alone needs 2.
    """

    world: World | None = None
    fewest: int = 2

    def sizes(self, count: int) -> tuple[int, ...]:
        """How many of `count` images each process has; empty where each has all of them."""
        size = 1 if self.world is None else self.world.size
        if size == 1 or count < self.fewest * size:
            return ()
        return tuple(count // size + (rank < count % size) for rank in range(size))

    def __call__(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch."""
        sizes = self.sizes(len(batch))
        return batch.split(list(sizes))[self.world.rank] if sizes and self.world is not None else batch

    def whole(self, value: Tensor, sizes: Sequence[int]) -> Tensor:
        """The rows of all processes, with their gradients; see `engine.processes.whole_batch.gathered`."""
        return gathered(value, self.world, sizes)


ALONE = Sharing()


class SharedBatches:
    """`(positions, images, sizes)`: this process's images of each batch, and how many each process has.

    Args:
        images: of a domain.
        rows: those to learn from.
        batch_size: over all processes.
        seed: of the order and of the augmentation.
        sharing: how.
    """

    def __init__(
        self, images: DomainImages, rows: Sequence[int], *, batch_size: int, seed: int, sharing: Sharing
    ) -> None:
        self._order, self._sharing = EpochOrder(len(rows), batch_size, seed), sharing
        self._batches = images.augmented(rows, batch_size=batch_size, seed=seed, part=sharing)

    @property
    def steps_per_epoch(self) -> int:
        """How many batches a pass has."""
        return self._order.steps

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of a pass from number `start` on."""
        whole = self._order.indices(epoch, start)
        for positions, (own, images) in zip(whole, self._batches.epoch(epoch, start), strict=True):
            yield own, images, self._sharing.sizes(len(positions))

    def name_of(self, index: int) -> str:
        """What the image at a position among the rows is called."""
        return name_of(self._batches, index)

    def close(self) -> None:
        """End what runs for the data."""
        close(self._batches)


class InEachStep:
    """A loss for parameters that take part in some steps and not in others, each of which must do so in all processes.

    What has no gradient in a step is left alone, by momentum and decay too. The wrapper of several processes would wait
    for a gradient of every parameter: here those that are there are averaged, after the backward pass.

    Args:
        objective: the loss of a batch.
    """

    def __init__(self, objective: Callable[[nn.Module, Any, Clock], Tensor]) -> None:
        self._objective = objective

    def __call__(self, model: nn.Module, batch: Any, clock: Clock) -> Iterator[Tensor]:
        """Yield the loss, once."""
        is_wrapped = isinstance(model, DistributedDataParallel)
        with gradients_stay_here(model) if is_wrapped else nullcontext():
            yield self._objective(model, batch, clock)
            if is_wrapped:
                _average_gradients(model)


def trained_module(model: nn.Module) -> nn.Module:
    """The module that learns, of what a loss is given."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def _average_gradients(model: nn.Module) -> None:
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
