"""Which way each patch of a frame moves: nine classes, from optical flow (arXiv 2207.09067, token flow direction)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

FLOW_CLASSES = 9
"""0 stands still; 1 ... 8 are eighths of a turn from 0 degrees (right), by way of 90 (down)."""
GRAY = (0.299, 0.587, 0.114)
GRAY_SCALE = 128.0
"""Normalised pixels are multiplied by it, for a flow that is meant for values of about 0 to 255."""

Flow = Callable[[Tensor, Tensor], Tensor]
"""From frames (P, H, W) and the frames after them to where each pixel goes, (P, 2, H, W) in pixels."""


@dataclass(frozen=True)
class FlowLabels:
    """How clips get their labels.

    Args:
        flow: between two frames.
        patch: side of a patch in pixels.
        still: pixels below which a patch stands still; None: below a hundredth of the range that the pair of frames
            has, as published, which calls everything still where all moves alike.
        bins: `edges`: the first direction is 0 to 45 degrees, as published; `centred`: -22.5 to 22.5.
    """

    flow: Flow
    patch: int
    still: float | None = None
    bins: Literal["edges", "centred"] = "edges"

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Labels of the patches of all frames but the last.

        Args:
            clips: normalised, (B, 3, T, H, W).

        Returns:
            int64 (B, T - 1, N), patches row by row.
        """
        gray = (clips.float() * clips.new_tensor(GRAY).view(1, 3, 1, 1, 1)).sum(dim=1) * GRAY_SCALE
        B, T = gray.shape[:2]
        moved = self.flow(gray[:, :-1].flatten(0, 1), gray[:, 1:].flatten(0, 1))
        return directions(moved, self.patch, self.still, self.bins).view(B, T - 1, -1)


def directions(
    flow: Tensor, patch: int, still: float | None = None, bins: Literal["edges", "centred"] = "edges"
) -> Tensor:
    """The class of every patch.

    Args:
        flow: (P, 2, H, W), dx to the right and dy downwards; H and W are multiples of `patch`.
        patch, still, bins: see `FlowLabels`.

    Returns:
        int64 (P, N).
    """
    dx, dy = F.avg_pool2d(flow, patch).flatten(2).unbind(1)
    degrees = torch.rad2deg(torch.atan2(dy, dx)) % 360
    if bins == "centred":
        degrees = (degrees + 22.5) % 360
    classes = (degrees // 45).clamp(max=7).long() + 1
    length = torch.hypot(dx, dy)
    if still is None:
        least, most = length.amin(dim=1, keepdim=True), length.amax(dim=1, keepdim=True)
        share = torch.where(most > least, (length - least) / (most - least) * 100, torch.zeros_like(length))
        stands = share.floor() == 0
    else:
        stands = length < still
    return classes.masked_fill(stands, 0)
