"""Frequency filters by their definition: transform, keep or drop each bin, transform back. Any device, any rank.

Ideal filters of FreqAug (arXiv 2204.03865). The other backends are measured against this one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vtk_kernels.frequency.bands import Filter, Harmonics


def frequency_filter(clip: Tensor, wanted: Filter, apply: Tensor | None) -> Tensor:
    """See `vtk_kernels.frequency_filter`; the arguments are valid and something passes."""
    filtered = filter_spectrum(clip, wanted.passes(*clip.shape[2:]), wanted.dims)
    return filtered if apply is None else torch.where(apply[:, None, None, None, None], filtered, clip)


def normalized(frames: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The clip (B, C, T, H, W) float32 of uint8 frames (B, T, H, W, C): (frames / 255 - mean) / std."""
    return ((frames.to(torch.float32) / 255 - mean) / std).permute(0, 4, 1, 2, 3).contiguous()


def filter_spectrum(clip: Tensor, passes: Harmonics, dims: tuple[int, ...]) -> Tensor:
    """`clip` with its transform along `dims` multiplied by `passes`, computed in at least float32.

    Args:
        clip: real, any shape; a dimension of `dims` has at least one entry.
        passes: for each of `dims`, one entry a harmonic |k| = 0 .. N // 2: whether it stays, or a weight. A bin and
            its mirror image have the same |k|, so the result is real.
        dims: the dimensions transformed, ascending.

    Returns:
        the shape and dtype of `clip`, contiguous.
    """
    if clip.numel() == 0:
        return torch.empty(clip.shape, dtype=clip.dtype, device=clip.device)
    sizes = [clip.shape[dim] for dim in dims]
    bins = [np.abs(np.fft.fftfreq(size, 1 / size).round().astype(int)) for size in sizes]
    bins[-1] = np.arange(sizes[-1] // 2 + 1)  # the half spectrum of a real transform
    stays = torch.from_numpy(passes[np.ix_(*bins)]).to(clip.device)
    stays = stays.reshape([stays.shape[dims.index(dim)] if dim in dims else 1 for dim in range(clip.ndim)])
    computed = clip if clip.dtype == torch.float64 else clip.to(torch.float32)
    filtered: Tensor = torch.fft.irfftn(torch.fft.rfftn(computed, dim=dims) * stays, s=sizes, dim=dims)
    return filtered.to(clip.dtype).contiguous()
