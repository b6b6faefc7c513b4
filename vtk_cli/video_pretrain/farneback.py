"""Dense optical flow by polynomial expansion (Farneback, SCIA 2003), batched over pairs of frames.

Around each pixel a frame is fitted by f(x) ~ x'Ax + b'x + c. If the second frame is the first one moved by d, then A is
the same and b' = b - 2Ad, so that d solves A d = (b - b')/2, in the mean over a window and from coarse to fine. What is
not in the paper (pyramid, borders, regularisation) is as OpenCV's `calcOpticalFlowFarneback` has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.video_pretrain.separable import along, box_mean, convolve, gaussian_kernel, pixel_grid, resized, sampled

SMALLEST = 32
"""No level of the pyramid has a shorter side."""
_BORDER = (0.14, 0.14, 0.4472, 0.4472, 0.4472)
"""How much the outermost pixels count, from the border inwards: their fits see the frame repeated."""
_RIDGE = 1e-3
"""Added to the determinant, so that where nothing can be seen there is no flow. For values of about 0 to 255."""


@dataclass(frozen=True)
class Farneback:
    """How the flow is computed; the values of TIME (arXiv 2207.09067).

    Args:
        shrink: the side of each level of the pyramid over that of the level below.
        levels: levels above the frame itself, as many as there is room for.
        window: side of the square over which the displacement is constant, odd, in pixels.
        iterations: on each level.
        radius: of the square in which a polynomial is fitted, in pixels.
        sigma: of the Gaussian weight in the fit, in pixels.
    """

    shrink: float = 0.5
    levels: int = 3
    window: int = 15
    iterations: int = 3
    radius: int = 5
    sigma: float = 1.2


def farneback_flow(first: Tensor, second: Tensor, settings: Farneback | None = None) -> Tensor:
    """Where each pixel of the first frame goes in the second.

    Args:
        first: (P, H, W) floating, grey values, a range of about 100 to 255 between dark and bright.
        second: (P, H, W).
        settings: None for the values of TIME.

    Returns:
        (P, 2, H, W) of the dtype of `first`: dx to the right and dy downwards, in pixels.
    """
    settings = settings or Farneback()
    height, width = first.shape[1:]
    frames = torch.cat((first, second))
    flow: Tensor | None = None
    for level in range(pyramid_levels(height, width, settings.shrink, settings.levels), -1, -1):
        smaller = pyramid_frames(frames, settings.shrink**level)
        if flow is None:
            flow = torch.zeros_like(smaller[: len(first), None]).repeat(1, 2, 1, 1)
        else:
            flow = resized(flow, *smaller.shape[1:]) / settings.shrink
        one, other = expand(smaller, settings.radius, settings.sigma).chunk(2)
        for _ in range(settings.iterations):
            flow = _improved(one, other, flow, settings.window)
    assert flow is not None  # noqa: S101  (level 0 is always there)
    return flow


def pyramid_levels(height: int, width: int, shrink: float, most: int) -> int:
    """How many smaller levels a frame has: at most `most`, while the shorter side is at least `SMALLEST`."""
    levels = 0
    while levels < most and min(height, width) * shrink ** (levels + 1) >= SMALLEST:
        levels += 1
    return levels


def pyramid_frames(frames: Tensor, scale: float) -> Tensor:
    """Frames (N, H, W) smoothed for `scale` and resized to it; at 1 they are smoothed by (1, 2, 1) / 4."""
    height, width = frames.shape[1:]
    sigma = (1 / scale - 1) / 2
    if sigma == 0:
        weights = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    else:
        weights = gaussian_kernel(sigma, max(round(5 * sigma) | 1, 3) // 2)
    smooth = convolve(frames, weights, "reflect")
    return resized(smooth[:, None], round(height * scale), round(width * scale))[:, 0]


def expand(frames: Tensor, radius: int, sigma: float) -> Tensor:
    """The polynomial of each pixel's surroundings, by least squares with Gaussian weights (Section 2 of the paper).

    Args:
        frames: (N, H, W).
        radius: of the window.
        sigma: of the weights.

    Returns:
        (N, 5, H, W): the coefficients of x, y, x^2, y^2 and xy; the constant is not needed.
    """
    powers, row = _moment_filters(radius, sigma)
    padded = F.pad(frames[:, None], (radius, radius, radius, radius), mode="replicate")[:, 0]
    moments = torch.stack([along(padded, 1, weights) for weights in powers], dim=1)
    # Channels last, three convolutions into five run several times as fast on the CPU.
    return F.conv2d(moments.contiguous(memory_format=torch.channels_last), row.to(frames)).contiguous()


@lru_cache(maxsize=8)
def _moment_filters(radius: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Weights (3, n) of the moments along y; filters (5, 3, 1, n) along x, solved for the coefficients."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weight = gaussian_kernel(sigma, radius)
    powers = torch.stack((weight, offsets * weight, offsets**2 * weight))  # sums of f, of y f and of y^2 f
    basis = ((0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (1, 1))  # powers of x and y
    sums = [(weight * offsets**power).sum() for power in range(5)]
    gram = torch.stack([torch.stack([sums[a + c] * sums[b + d] for c, d in basis]) for a, b in basis])
    row = torch.zeros(6, 3, 2 * radius + 1, dtype=torch.float64)
    for number, (x, y) in enumerate(basis):
        row[number, y] = powers[x]
    solved = torch.einsum("ij,jyn->iyn", torch.linalg.inv(gram), row)[1:]
    return powers, solved[:, :, None, :]


def _improved(one: Tensor, other: Tensor, flow: Tensor, window: int) -> Tensor:
    """One iteration: the displacement over a window that fits best, given the flow (P, 2, H, W) so far."""
    height, width = flow.shape[2:]
    column, row = pixel_grid(height, width, flow)
    dx, dy = flow.unbind(1)
    x, y = column + dx, row + dy
    left, top = x.floor(), y.floor()
    inside = (left >= 0) & (left < width - 1) & (top >= 0) & (top < height - 1)
    moved = sampled(other, x, y)
    # Outside there is nothing to compare with: the first frame's own curvature, and no slope.
    moved = torch.where(inside[:, None], moved, torch.cat((torch.zeros_like(one[:, :2]), one[:, 2:]), dim=1))
    xx, yy = ((one[:, 2:4] + moved[:, 2:4]) / 2).unbind(1)
    xy = (one[:, 4] + moved[:, 4]) / 4
    bx, by = ((one[:, :2] - moved[:, :2]) / 2).unbind(1)
    bx, by = bx + xx * dx + xy * dy, by + xy * dx + yy * dy
    weight = _border_weight(height, width, flow)
    xx, yy, xy, bx, by = (map_ * weight for map_ in (xx, yy, xy, bx, by))
    normal = torch.stack(
        (xx * xx + xy * xy, (xx + yy) * xy, yy * yy + xy * xy, xx * bx + xy * by, xy * bx + yy * by), dim=1
    )
    g11, g12, g22, h1, h2 = box_mean(normal, window).unbind(1)
    determinant = g11 * g22 - g12 * g12 + _RIDGE
    return torch.stack(((g22 * h1 - g12 * h2) / determinant, (g11 * h2 - g12 * h1) / determinant), dim=1)


def _border_weight(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W): the product of how much its row and its column count."""
    along = []
    for length in (height, width):
        weight = torch.ones(length, dtype=like.dtype, device=like.device)
        edge = torch.tensor(_BORDER[:length], dtype=like.dtype, device=like.device)
        weight[: len(edge)] *= edge
        weight[-len(edge) :] *= edge.flip(0)
        along.append(weight)
    return torch.outer(*along)
