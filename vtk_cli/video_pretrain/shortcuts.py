"""Clips without what a network should look at: what it still gets right there, it knows from something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vtk_kernels.frequency import frequency_filter, low

CUTOFF = 0.1
"""Of the low-pass along time, in cycles a frame: of 8 frames it leaves the mean, the background."""


def shuffled_frames(clips: Tensor) -> Tensor:
    """(B, C, T, H, W) in an order that is none of time's, the same for every clip."""
    order = torch.randperm(clips.shape[2], generator=torch.Generator().manual_seed(0))
    return clips[:, :, order]


def reversed_frames(clips: Tensor) -> Tensor:
    """Backwards."""
    return clips.flip(2)


def one_frame(clips: Tensor) -> Tensor:
    """The frame in the middle, again and again."""
    T = clips.shape[2]
    return clips[:, :, T // 2 : T // 2 + 1].expand_as(clips)


def background(clips: Tensor) -> Tensor:
    """What is slow: a low-pass along time."""
    return frequency_filter(clips.contiguous(), low(CUTOFF), None)


SHORTCUTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "shuffled": shuffled_frames,
    "reversed": reversed_frames,
    "one frame": one_frame,
    "background": background,
}
