"""Images as networks see them, by slices: kept as numbers, as bytes, or read whenever they are asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from vtk_cli.data.augmentation import Transform
from vtk_cli.data.classification import ImageSource
from vtk_cli.data.evaluation_batches import evaluation_transform
from vtk_cli.data.images import BrokenImage
from vtk_cli.data.pointed import without_points
from vtk_cli.errors import UserError
from vtk_cli.search.treatments import Pixels

FLOAT_BYTES = 512 * 2**20
"""Images that take no more than this as numbers are kept so: made from bytes in every pass they cost time."""


class Seen(Protocol):
    """Images as networks see them, by slices: a tensor, or what reads and converts what is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class FromBytes:
    """Images kept as bytes on the device, converted by slices."""

    images: Tensor
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: slice) -> Tensor:
        """Float32 images of a slice, on the device."""
        return self.pixels.normalised(self.images[which])


@dataclass(frozen=True, eq=False)
class FromFiles:
    """Images that are read anew for every slice, by threads."""

    source: ImageSource
    pixels: Pixels
    device: torch.device
    threads: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, which: slice) -> Tensor:
        """Float32 images of a slice, on the device.

        Raises:
            UserError: an image cannot be read.
        """
        read = partial(_read, self.source, evaluation_transform(self.pixels.config))
        numbers = range(len(self))[which]
        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            found = torch.stack([*pool.map(read, numbers)])
        return self.pixels.normalised(found.to(self.device, non_blocking=True))


def _read(source: ImageSource, transform: Transform, index: int) -> Tensor:
    try:
        image = source.read(index)
    except BrokenImage as error:
        raise UserError(error.what, error.where, "replace it, or leave it out with --split-file") from error
    found: Tensor = pil_to_tensor(transform(without_points(image)).image)
    return found


def seen_images(images: Tensor, pixels: Pixels) -> Seen:
    """Images (N, 3, S, S) uint8 as networks see them, as numbers where these take little room."""
    return pixels.normalised(images) if 4 * images.numel() <= FLOAT_BYTES else FromBytes(images, pixels)
