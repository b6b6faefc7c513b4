"""The images of a domain as the stages take them: in any selection and order, and without any label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from vtk_cli.engine.batches import Batches, EpochOrder, LoaderBatches
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.engine.workers import outlive_stop_signals
from vtk_cli.models.preprocessing import PixelConfig

_CROP = 0.875
"""Side of the crop over that of the resized image: 224 of 256 pixels."""


Part = Callable[[Tensor], Tensor]
"""Chooses rows (b, ...) of a batch (B, ...): those of this process."""


class DomainImages(Protocol):
    """Images of one domain, by row."""

    def __len__(self) -> int:
        """How many there are."""

    def augmented(self, rows: Sequence[int], *, batch_size: int, seed: int, part: Part | None = None) -> Batches:
        """Batches `(positions, images)` to train on: positions in `rows` (B,) int64, images (B, 3, S, S) uint8.

        Of each batch those that `part` chooses, all of them if it is None.
        """

    def plain(self, rows: Sequence[int], *, batch_size: int) -> Iterable[Tensor]:
        """Batches (B, 3, S, S) uint8 to measure on: every row once, in the order given."""


@dataclass(frozen=True, eq=False)
class MemoryImages:
    """Images in memory; a batch to train on is shifted as a whole, with what comes in mirrored at the border.

    Args:
        images: (N, 3, S, S) uint8.
        shift: pixels, at most, each way.
        names: of the images, by row; None for images without.
    """

    images: Tensor
    shift: int = 2
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def augmented(self, rows: Sequence[int], *, batch_size: int, seed: int, part: Part | None = None) -> Batches:
        """As `DomainImages`."""
        chosen = self.images[torch.tensor(list(rows), dtype=torch.int64)]
        order = EpochOrder(len(rows), batch_size, seed)
        return _Shifted(chosen, order, self.shift, seed, part, _names_of(self.names, rows))

    def plain(self, rows: Sequence[int], *, batch_size: int) -> Iterable[Tensor]:
        """As `DomainImages`."""
        for part in torch.tensor(list(rows), dtype=torch.int64).split(batch_size):
            yield self.images[part]


@dataclass(frozen=True, eq=False)
class ReadImages:
    """Images that are read and decoded when they are needed.

    To train on: resized to a square of 8/7 of the side, a random crop, mirrored or not; to measure on, the middle.

    Args:
        count: how many there are.
        read: the upright RGB image of a row; picklable.
        pixels: the side of the network's input.
        workers: processes that read; 0: this one.
        pin_memory: copy batches to page-locked memory.
        names: of the images, by row; None for images without.
    """

    count: int
    read: Callable[[int], Image.Image]
    pixels: PixelConfig
    workers: int = 0
    pin_memory: bool = False
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return self.count

    def augmented(self, rows: Sequence[int], *, batch_size: int, seed: int, part: Part | None = None) -> Batches:
        """As `DomainImages`."""
        crop = (transforms.RandomCrop(self.pixels.input_size), transforms.RandomHorizontalFlip())
        images = _Chosen(self.read, tuple(rows), self._transform(*crop), _names_of(self.names, rows))
        return LoaderBatches(images, batch_size, seed, self.workers, pin_memory=self.pin_memory, part=part)

    def plain(self, rows: Sequence[int], *, batch_size: int) -> Iterable[Tensor]:
        """As `DomainImages`."""
        images = _Chosen(self.read, tuple(rows), self._transform(transforms.CenterCrop(self.pixels.input_size)))
        loader = DataLoader(
            images,
            batch_size,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            worker_init_fn=outlive_stop_signals,
            generator=torch.Generator(),  # its own: the global one stays where the training left it
        )
        for (batch,) in loader:
            yield batch

    def _transform(self, *crop: Callable[[Any], Any]) -> Callable[[Image.Image], Tensor]:
        side = round(self.pixels.input_size / _CROP)
        resize = transforms.Resize((side, side), InterpolationMode(self.pixels.interpolation))
        composed: Callable[[Image.Image], Tensor] = transforms.Compose([resize, *crop, transforms.PILToTensor()])
        return composed


@dataclass(frozen=True)
class _Chosen(Dataset[tuple[Tensor]]):
    read: Callable[[int], Image.Image]
    rows: tuple[int, ...]
    transform: Callable[[Image.Image], Tensor]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[Tensor]:
        return (self.transform(self.read(self.rows[position])),)

    def name_of(self, position: int) -> str:
        return self.names[position]


@dataclass(frozen=True, eq=False)
class _Shifted:
    images: Tensor
    order: EpochOrder
    shift: int
    seed: int
    part: Part | None
    names: tuple[str, ...]

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for step, batch in enumerate(self.order.indices(epoch, start), start):
            positions = batch if self.part is None else self.part(batch)
            yield positions, shifted(self.images[positions], self.shift, sample_seed(self.seed, epoch, step))

    def name_of(self, position: int) -> str:
        return self.names[position]


def _names_of(names: Sequence[str] | None, rows: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"image {row}" if names is None else names[row] for row in rows)


def shifted(images: Tensor, most: int, seed: int) -> Tensor:
    """Images (B, 3, S, S) moved together by up to `most` pixels each way, mirrored at the border."""
    if not most:
        return images
    generator = torch.Generator().manual_seed(seed)
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    height, width = images.shape[2:]
    padded = F.pad(images.float(), (most,) * 4, mode="reflect").to(images.dtype)  # whole numbers stay exact
    return padded[..., down : down + height, right : right + width]
