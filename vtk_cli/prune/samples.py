"""Images out of a generator: the same latents everywhere, 8 bits, and pictures of many samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vtk_cli.files import atomic_path
from vtk_kernels import uniform

BATCH = 100

_DOMAIN = 0x7A  # z
_GAP = 2
_SHOWN_SIDE = 64
"""Smaller samples are enlarged by a whole factor to about this side."""


def latents(count: int, length: int, seed: int, start: int = 0) -> Tensor:
    """Standard normal latents that depend on (seed, number of the sample, place) alone.

    Counter-based uniform numbers through Box and Muller's transform in float64: not on a framework's generator, nor on
    how samples are cut into batches.

    Args:
        count: how many, B.
        length: numbers in each, Z.
        seed: 64 bits.
        start: the number of the first sample.

    Returns:
        (B, Z) float32, on the CPU.
    """
    pairs = -(-length // 2)
    numbers = torch.arange(start, start + count, dtype=torch.int64)
    first, second = uniform(numbers, 2 * pairs, seed=seed, domain=_DOMAIN).double().unflatten(1, (2, pairs)).unbind(1)
    radius = (-2 * torch.log1p(-first)).sqrt()  # of 1 - u, which is never 0
    angle = 2 * math.pi * second
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)[:, :length].float()


def quantised(images: Tensor) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] as uint8: floor(255 (x + 1) / 2 + 1/2), what is outside clamped."""
    return (255 * (images.float() + 1) / 2 + 0.5).clamp(0, 255).floor().to(torch.uint8)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in eval mode; afterwards every part of it is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def generated(generator: nn.Module, z: Tensor, *, device: torch.device, batch: int = BATCH) -> Iterator[Tensor]:
    """The images of latents in eval mode, batch by batch.

    Args:
        generator: (B, Z) -> (B, C, H, W) in [-1, 1].
        z: (N, Z).
        device: where the generator is.
        batch: latents at a time.

    Yields:
        (B, C, H, W) uint8, on the CPU.
    """
    for part in z.split(batch):
        with evaluating(generator), torch.no_grad():
            images = quantised(generator(part.to(device))).cpu()
        yield images


def sample_grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Samples row by row on white, small ones enlarged by a whole factor with their pixels kept square.

    Args:
        images: (N, C, H, W) uint8, C 1 or 3, N >= 1.
        columns: samples a row; None makes the grid about square.

    Returns:
        An RGB image.

    Raises:
        ValueError: there are no images, or they are of another type or shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images) or images.shape[1] not in {1, 3}:
        raise ValueError(f"a grid is made of uint8 (N, 1 or 3, H, W), not of {images.dtype} {tuple(images.shape)}")
    count, _, height, width = images.shape
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    factor = max(1, _SHOWN_SIDE // max(height, width))
    tiles = _enlarged(images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy(), factor)
    down, right = height * factor + _GAP, width * factor + _GAP
    rows = -(-count // columns)
    sheet: NDArray[np.uint8] = np.full((rows * down + _GAP, columns * right + _GAP, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = _GAP + index // columns * down, _GAP + index % columns * right
        sheet[top : top + height * factor, left : left + width * factor] = tile
    return Image.fromarray(sheet)


def write_sample_grid(path: Path, images: Tensor, columns: int | None = None) -> None:
    """Write `sample_grid` as a PNG, atomically; the same samples give the same bytes."""
    sheet = sample_grid(images, columns)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def write_image(path: Path, image: Tensor) -> None:
    """Write one image, uint8 (1 or 3, H, W), pixel by pixel as a PNG, atomically."""
    pixels = image.permute(1, 2, 0).numpy()
    with atomic_path(path) as temporary:
        Image.fromarray(pixels.squeeze(2) if len(image) == 1 else pixels).save(temporary, format="PNG")


def _enlarged(tiles: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return tiles.repeat(factor, axis=1).repeat(factor, axis=2)
