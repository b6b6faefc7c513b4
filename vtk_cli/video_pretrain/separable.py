"""Separable convolutions of frames: a row of weights along each axis."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Border = Literal["reflect", "replicate"]


def gaussian_kernel(sigma: float, radius: int) -> Tensor:
    """(2 radius + 1,) float64 weights of a Gaussian, sampled at whole pixels; their sum is 1.

    Args:
        sigma: above 0, in pixels.
        radius: 0 or more.
    """
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def convolve(frames: Tensor, weights: Tensor, border: Border) -> Tensor:
    """Frames convolved with the same weights along height and along width.

    Args:
        frames: (N, H, W) floating.
        weights: (2 r + 1,); r is below H and W where the border reflects.
        border: what lies outside: the frame mirrored at its outermost pixels, or these pixels again.

    Returns:
        (N, H, W).
    """
    radius = len(weights) // 2
    column = weights.to(frames).view(1, 1, -1, 1)
    padded = F.pad(frames[:, None], (radius, radius, radius, radius), mode=border)
    return F.conv2d(F.conv2d(padded, column), column.mT)[:, 0]


def box_mean(maps: Tensor, side: int) -> Tensor:
    """The mean over a square of `side` pixels (odd) around each pixel; at the border the outermost pixels count again.

    Args:
        maps: (N, C, H, W).

    Returns:
        (N, C, H, W).
    """
    radius = side // 2
    padded = F.pad(maps, (radius, radius, radius, radius), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, (side, 1), stride=1), (1, side), stride=1)


def resized(frames: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) resized bilinearly, pixel centres at halves, without smoothing first."""
    if frames.shape[2:] == (height, width):
        return frames
    return F.interpolate(frames, size=(height, width), mode="bilinear", align_corners=False)


def pixel_grid(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The column (H, W) and the row (H, W) of every pixel, of the dtype and device of `like`."""
    rows = torch.arange(height, dtype=like.dtype, device=like.device)
    columns = torch.arange(width, dtype=like.dtype, device=like.device)
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    return column, row


def sampled(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Maps read bilinearly at pixel positions; outside, the nearest pixel of the border.

    Args:
        maps: (N, C, H, W).
        x: (N, H', W') columns in pixels, 0 the centre of the first.
        y: (N, H', W') rows.

    Returns:
        (N, C, H', W').
    """
    height, width = maps.shape[2:]
    # With corners aligned, -1 and 1 are the centres of the outermost pixels.
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=-1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=True)
