"""How an image comes to the size of the network that embeds it, which changes the distances more than models do.

arXiv 2104.11222, Sections 3 and 4. Both ways keep floating point numbers and stay within 0..255.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.prune.metrics.catalog import Resize


def resized(images: Tensor, side: int, mode: Resize) -> Tensor:
    """Images at `side` x `side`.

    Args:
        images: (B, C, H, W) uint8.
        side: in pixels.
        mode: `clean` or `legacy`, see `catalog.RESIZES`.

    Returns:
        (B, C, side, side) float32 in 0..255, on the CPU.

    Raises:
        ValueError: the images are not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images of {images.dtype}: distances are measured on 8-bit images")
    pixels = images.cpu()
    if tuple(pixels.shape[-2:]) == (side, side):
        return pixels.float()
    return _clean(pixels, side) if mode == "clean" else _legacy(pixels, side)


def _clean(images: Tensor, side: int) -> Tensor:
    """Pillow's bicubic filter, widened where it shrinks, on each channel as floats."""
    channels = images.reshape(-1, *images.shape[-2:]).numpy().astype(np.float32)

    def made(channel: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(Image.fromarray(channel).resize((side, side), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of the interpreter while it resizes
        stacked = torch.from_numpy(np.stack(list(pool.map(made, channels))))
    return stacked.clamp_(0, 255).reshape(*images.shape[:2], side, side)


def _legacy(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images.float(), size=(side, side), mode="bilinear", align_corners=False).clamp_(0, 255)
