"""Dense optical flow after Lucas and Kanade (IJCAI 1981), from coarse to fine, batched over pairs of frames.

The brightness of a small window does not change as it moves: its displacement d solves
sum(g g') d = sum(g (I - J + g'f)), with g the gradient of the first frame I, f the flow so far, and J the second frame
moved back by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.video_pretrain.farneback import pyramid_frames, pyramid_levels
from vtk_cli.video_pretrain.separable import box_mean, pixel_grid, resized, sampled

_RIDGE = 0.1
"""How much the mean flow of a window weighs in its equations: all, where it has no gradient. For values of 0 to 255."""
_STEP = 1.0
"""Pixels that an iteration goes from that mean at most; further the gradient says nothing."""


@dataclass(frozen=True)
class LucasKanade:
    """How the flow is computed.

    Args:
        levels: levels of the pyramid above the frame itself, each half as large, as many as there is room for.
        window: side of the square that moves as one, odd, in pixels.
        iterations: on each level.
    """

    levels: int = 3
    window: int = 15
    iterations: int = 3


def lucas_kanade_flow(first: Tensor, second: Tensor, settings: LucasKanade | None = None) -> Tensor:
    """Where each pixel of the first frame goes in the second.

    Args:
        first: (P, H, W) floating, grey values, a range of about 100 to 255 between dark and bright.
        second: (P, H, W).
        settings: None for the defaults.

    Returns:
        (P, 2, H, W) of the dtype of `first`: dx to the right and dy downwards, in pixels.
    """
    settings = settings or LucasKanade()
    frames = torch.cat((first, second))
    flow: Tensor | None = None
    for level in range(pyramid_levels(first.shape[1], first.shape[2], 0.5, settings.levels), -1, -1):
        one, other = pyramid_frames(frames, 0.5**level).chunk(2)
        still = torch.zeros_like(one[:, None]).repeat(1, 2, 1, 1)
        flow = still if flow is None else resized(flow, one.shape[1], one.shape[2]) * 2
        flow = _refined(one, other, flow, settings)
    assert flow is not None  # noqa: S101  (level 0 is always there)
    return flow


def _refined(one: Tensor, other: Tensor, flow: Tensor, settings: LucasKanade) -> Tensor:
    padded = F.pad(one[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    gx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    gy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    g11, g12, g22 = box_mean(torch.stack((gx * gx, gx * gy, gy * gy), dim=1), settings.window).unbind(1)
    g11, g22 = g11 + _RIDGE, g22 + _RIDGE
    determinant = g11 * g22 - g12 * g12
    column, row = pixel_grid(one.shape[1], one.shape[2], one)
    for _ in range(settings.iterations):
        mean = box_mean(flow, settings.window)
        dx, dy = flow.unbind(1)
        # Each pixel of a window was moved by its own flow, so what is solved for is the whole displacement, not a step:
        # steps leave the flow's ripples as they are, and those shorter than the window grow.
        target = one - sampled(other[:, None], column + dx, row + dy)[:, 0] + gx * dx + gy * dy
        h1, h2 = (box_mean(torch.stack((gx * target, gy * target), dim=1), settings.window) + _RIDGE * mean).unbind(1)
        solved = torch.stack(((g22 * h1 - g12 * h2) / determinant, (g11 * h2 - g12 * h1) / determinant), dim=1)
        flow = mean + (solved - mean).clamp(-_STEP, _STEP)
    return flow
