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
    padded = F.pad(frames[:, None], (radius, radius, radius, radius), mode=border)[:, 0]
    return along(along(padded, 1, weights), 2, weights)


def along(values: Tensor, dim: int, weights: Tensor) -> Tensor:
    """The sums of `len(weights)` neighbours along a dimension, which loses `len(weights) - 1` entries.

    One pass over memory for each weight: on the CPU torch's convolution of one channel takes twenty times as long.
    """
    length = values.shape[dim] - len(weights) + 1
    first, *others = weights.tolist()
    total: Tensor = values.narrow(dim, 0, length) * first
    for offset, weight in enumerate(others, start=1):
        total.add_(values.narrow(dim, offset, length), alpha=weight)
    return total


def box_mean(maps: Tensor, side: int) -> Tensor:
    """The mean over a square of `side` pixels (odd) around each pixel; at the border the outermost pixels count again.

    Args:
        maps: (N, C, H, W).

    Returns:
        (N, C, H, W).
    """
    radius = side // 2
    padded = F.pad(maps, (radius, radius, radius, radius), mode="replicate")
    return _running_sum(_running_sum(padded, 2, side), 3, side).div_(side * side)


def _running_sum(values: Tensor, dim: int, count: int) -> Tensor:
    """Sums of `count` neighbours along a dimension, put together from sums of 1, 2, 4, 8 ... of them.

    As many additions as `count` has binary digits; and unlike a difference of cumulative sums each result depends on
    its neighbours alone, so that a dark corner is not lost in the rounding of a bright one.
    """
    length = values.shape[dim] - count + 1
    total, start, size = torch.zeros_like(values.narrow(dim, 0, length)), 0, 1
    while True:
        if count & size:
            total.add_(values.narrow(dim, start, length))
            start += size
        if 2 * size > count:
            return total
        left = values.shape[dim] - size
        values = values.narrow(dim, 0, left) + values.narrow(dim, size, left)
        size *= 2


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
