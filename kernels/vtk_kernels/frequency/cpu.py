"""The frequency filter on the CPU: hands the tensors to `cpu.cpp` and receives the result."""

from __future__ import annotations

import torch
from torch import Tensor

from vtk_kernels import dispatch
from vtk_kernels.frequency.lowrank import LowRank


def frequency_filter(clip: Tensor, matrices: LowRank, apply: Tensor | None) -> Tensor:
    """See `lowrank.py` for the map; `clip` (B, C, T, H, W) is contiguous and needs no gradient."""
    out = torch.empty_like(clip)
    dispatch.cpu_module("frequency").filter(clip, out, *_arguments(len(clip), matrices, apply))
    return out


def frequency_filter_frames(
    frames: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype, matrices: LowRank, apply: Tensor | None
) -> Tensor:
    """The map of the clip whose values are byte * scale + shift; `frames` (B, T, H, W, C) uint8 is contiguous."""
    batch, length, height, width, channels = frames.shape
    out = torch.empty(batch, channels, length, height, width, dtype=dtype)
    module = dispatch.cpu_module("frequency")
    module.filter_frames(frames, out, scale, shift, *_arguments(batch, matrices, apply))
    return out


def _arguments(batch: int, matrices: LowRank, apply: Tensor | None) -> tuple[Tensor | bool | int, ...]:
    return (
        matrices.keeps_pixels,
        matrices.temporal,
        matrices.keeps_frames,
        matrices.rows,
        matrices.columns,
        matrices.weights,
        matrices.joint,
        torch.ones(batch, dtype=torch.uint8) if apply is None else apply.to(torch.uint8),
        dispatch.threads(),
    )
