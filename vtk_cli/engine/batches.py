"""The samples of an epoch in their order, batch by batch, from any position.

What a run sees depends on the seed, the epoch and the sample's index alone: not on the number of workers, nor on
where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.sample_names import name_of
from vtk_cli.engine.seeds import preserved_sample_rng, sample_seed, start_sample_rng
from vtk_cli.engine.workers import outlive_stop_signals
from vtk_cli.errors import UserError, VtkError

REPEATED_UNIT = 256
"""An epoch with repeats holds whole units of so many samples, as timm's `RepeatAugSampler` and DeiT's have it."""


class Batches(Protocol):
    """Where a training loop gets its batches.

    One that keeps processes has a `close()` too, called after training. One whose samples have names has a
    `name_of(index)`, see `sample_names`.
    """

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has; the same in every process."""

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of epoch `epoch` from number `start` on, each `(indices, ...)`.

        `indices`: (B,) int64 on the CPU, which samples of the data set these are.
        """


@dataclass(frozen=True)
class EpochOrder:
    """Which samples make up each batch of each epoch: a permutation drawn from (seed, epoch), cut into batches.

    The last batch is short where the division leaves a rest. A rest of a single sample joins the batch before it,
    since batch normalisation cannot train on one. Among several processes a batch is shared equally; where its
    samples do not go round, its first ones are repeated, as torch's `DistributedSampler` does, and where that would
    leave one sample to each, all are repeated. The batches are the same however many processes share them.

    With repeated augmentation (arXiv 1901.09335) each sample of the permutation comes `repeats` times in a row, and the
    epoch ends where it would have ended without, after as many samples as there are, rounded down to whole 256 where
    there are so many, as in the recipes of DeiT: it sees a part of the data set, each image of it augmented anew.

    Args:
        samples: how many there are.
        batch_size: samples in a batch, over all processes.
        seed: of the permutations.
        world: this process among the others; None for a single one.
        repeats: how often a sample comes in a row.

    Raises:
        UserError: there is no sample, or the processes cannot share a batch equally.
    """

    samples: int
    batch_size: int
    seed: int
    world: World | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError("there is no sample to train on")
        if self.batch_size < 1 or self.batch_size % self._size:
            what = f"a batch of {self.batch_size} cannot be shared equally by {self._size} process(es)"
            raise UserError(what, "--batch-size", f"choose a multiple of {self._size}")
        if self.repeats < 1:
            raise UserError(f"{self.repeats} repeats of a sample are out of range", "--repeats", "give at least 1")

    @property
    def _length(self) -> int:
        """Samples in an epoch, repeats counted."""
        if self.repeats == 1 or self.samples < REPEATED_UNIT:
            return self.samples
        return self.samples // REPEATED_UNIT * REPEATED_UNIT

    @property
    def _size(self) -> int:
        return self.world.size if self.world is not None else 1

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self._length, self.batch_size)
        return max(1, full + (rest >= 2))

    def indices(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """This process's samples of the batches `start`, `start + 1` ... of the epoch, each (B,) int64."""
        for keys in self.keys(epoch, start):
            yield keys[:, 0]

    def keys(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """As `indices`, each (B, 2) int64: the sample and which of its repeats this is, from 0."""
        generator = torch.Generator().manual_seed(sample_seed(self.seed, epoch, 0))
        position = torch.arange(self._length)
        drawn = torch.randperm(self.samples, generator=generator)[position // self.repeats]
        order = torch.stack((drawn, position % self.repeats), dim=1)
        for step in range(start, self.steps):
            first = step * self.batch_size
            batch = order[first:] if step == self.steps - 1 else order[first : first + self.batch_size]
            yield self._share(batch)

    def _share(self, batch: Tensor) -> Tensor:
        if self.world is None or self._size == 1:
            return batch
        share = max(-(-len(batch) // self._size), min(2, self.batch_size // self._size))
        whole = batch.repeat(-(-share * self._size // len(batch)), 1)[: share * self._size]
        return whole[self.world.rank * share : (self.world.rank + 1) * share]


class TensorBatches:
    """Batches of data that is in memory.

    Args:
        tensors: each (N, ...), on any device.
        batch_size: samples in a batch, over all processes.
        seed: of the order.
        world: this process among the others; None for a single one.
        names: of the samples.

    Raises:
        UserError: see `EpochOrder`.
    """

    def __init__(
        self,
        *tensors: Tensor,
        batch_size: int,
        seed: int,
        world: World | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        if len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"tensors of different lengths: {[len(tensor) for tensor in tensors]}")
        self._tensors, self._names = tensors, names
        self._order = EpochOrder(len(tensors[0]), batch_size, seed, world)

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._order.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Yield `(indices, *slices)`, `indices` (B,) int64 on the CPU, from batch `start` on."""
        for indices in self._order.indices(epoch, start):
            yield indices, *(tensor[indices.to(tensor.device, non_blocking=True)] for tensor in self._tensors)

    def name_of(self, index: int) -> str:
        """What a sample is called."""
        return f"sample {index}" if self._names is None else self._names[index]


class LoaderBatches:
    """Batches of a data set that is read, decoded and augmented by worker processes.

    While sample i of epoch e is made, Python's, NumPy's and torch's generators start from a seed made of (seed, e, i)
    alone, and of which of its repeats it is. A sample may be anything; a tuple of samples becomes the rest of the
    batch's tuple.

    Args:
        dataset: with a length; draws its randomness from the global generators.
        batch_size: samples in a batch, over all processes.
        seed: of the order and of the augmentation.
        workers: worker processes; with 0 samples are made in this one.
        world: this process among the others; None for a single one.
        collate: makes a batch of a list of samples; torch's `default_collate` if None.
        pin_memory: copy batches to page-locked memory, from where they reach a GPU faster.
        repeats: how often a sample comes in a row, augmented anew each time; see `EpochOrder`.
        part: chooses of a batch's rows those that are made here, in place of an equal share; without a `world`.

    Raises:
        UserError: see `EpochOrder`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        seed: int,
        workers: int,
        world: World | None = None,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        repeats: int = 1,
        part: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._order = EpochOrder(len(cast("Sized", dataset)), batch_size, seed, world, repeats)
        self._keys = _KeyedBatches(self._order, part)
        self._make_loader = partial(
            DataLoader,
            _SeededDataset(dataset, seed),
            batch_sampler=self._keys,
            num_workers=workers,
            collate_fn=_Collate(collate or default_collate),
            pin_memory=pin_memory,
            worker_init_fn=outlive_stop_signals,
            persistent_workers=workers > 0,
            # Its own generator: the loader draws from it at the start of every epoch, also of one that is resumed.
            generator=torch.Generator(),
        )
        self._loader: DataLoader[Any] | None = None
        self._dataset = dataset

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._order.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, ...]]:
        """Yield `(indices, *collated)`, `indices` (B,) int64 on the CPU, from batch `start` on.

        Raises:
            VtkError: the one that the data set raised for a sample.
        """
        self._keys.epoch, self._keys.start = epoch, start
        if self._loader is None:
            self._loader = self._make_loader()
        for batch in self._loader:
            if isinstance(batch, _Refused):
                self.close()
                raise batch.error
            yield tuple(batch)  # pinning makes a list of it

    def name_of(self, index: int) -> str:
        """What the data set calls a sample."""
        return name_of(self._dataset, index)

    def close(self) -> None:
        """End the worker processes; another epoch starts new ones.

        Left to the garbage collector, torch may wait for them in vain for seconds.
        """
        self._loader = None


@dataclass
class _Refused:
    """An error of the data set on its way from a worker: torch would wrap its message in the worker's traceback."""

    error: VtkError


@dataclass
class _KeyedBatches(Sampler[list[tuple[int, int, int]]]):
    """Lists of (epoch, index, repeat): workers that live for many epochs learn the epoch from the key."""

    order: EpochOrder
    part: Callable[[Tensor], Tensor] | None = None
    epoch: int = 0
    start: int = 0

    def __len__(self) -> int:
        return self.order.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        for keys in self.order.keys(self.epoch, self.start):
            chosen = keys if self.part is None else self.part(keys)
            yield [(self.epoch, index, repeat) for index, repeat in chosen.tolist()]


@dataclass
class _SeededDataset(Dataset[Any]):
    dataset: Dataset[Any]
    seed: int

    def __getitems__(self, keys: list[tuple[int, int, int]]) -> list[tuple[int, Any] | _Refused]:
        """A batch of samples; torch asks for whole batches where a data set can give them."""
        with preserved_sample_rng():
            return [self._sample(*key) for key in keys]

    def _sample(self, epoch: int, index: int, repeat: int) -> tuple[int, Any] | _Refused:
        seed = sample_seed(self.seed, epoch, index)
        start_sample_rng(sample_seed(seed, repeat, index) if repeat else seed)
        try:
            return index, self.dataset[index]
        except VtkError as error:
            return _Refused(error)


@dataclass
class _Collate:
    collate: Callable[[list[Any]], Any]

    def __call__(self, samples: list[tuple[int, Any] | _Refused]) -> tuple[Any, ...] | _Refused:
        good: list[tuple[int, Any]] = []
        for sample in samples:
            if isinstance(sample, _Refused):
                return sample
            good.append(sample)
        indices = torch.tensor([index for index, _ in good])
        batch = self.collate([sample for _, sample in good])
        return indices, *(batch if isinstance(batch, (tuple, list)) else (batch,))
