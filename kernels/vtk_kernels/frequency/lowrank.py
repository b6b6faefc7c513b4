"""A filter as a low-rank real linear map: what the fused kernels compute.

The real Fourier modes of an axis of length N, 1 / sqrt(N), sqrt(2 / N) cos(2 pi k n / N), sqrt(2 / N) sin(2 pi k n / N)
and, for even N, the alternating (-1)^n / sqrt(N), are orthonormal, and a mask that depends on |k| alone is diagonal in
them (in their tensor product, over several axes). With C the modes of the few harmonics that a filter keeps, or of the
few that it drops, it is C C^T, or I - C C^T:

    y = G (s x + R m(R^T x W^T) W),    G = g I + (1 - 2 g) U U^T

U holds temporal modes, R and W the modes of rows and columns, s and g are 0 or 1, and m multiplies each of the few
coefficients of a frame by a weight; in the joint filter it does so in the temporal modes V: m(K) = V (w . V^T K).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtk_kernels.frequency.bands import Filter, Harmonics

MOST_FRAMES = 128
"""A column of frames longer than this no longer stays in registers, or in the first-level cache."""
MOST_SPATIAL_MODES = 32
"""Along either axis: beyond, the transform does less arithmetic than the projection."""


@dataclass(frozen=True)
class LowRank:
    """The matrices of y = G (s x + R m(R^T x W^T) W) on one device; a part that is not there has no modes."""

    keeps_pixels: bool
    """g: whether G is I - U U^T, not U U^T."""
    temporal: Tensor
    """U (T, r_t)."""
    keeps_frames: bool
    """s: whether the frames stay and modes are taken out of them, not the modes alone."""
    rows: Tensor
    """R (H, r_h)."""
    columns: Tensor
    """W (r_w, W)."""
    weights: Tensor
    """(1, r_h, r_w), or w (r_v, r_h, r_w) of a joint filter; 0, 1 or -1."""
    joint: Tensor
    """V (T, r_v); no modes unless the filter is joint."""

    @property
    def filters_time(self) -> bool:
        """Whether G is not the identity."""
        return self.temporal.shape[1] > 0 or not self.keeps_pixels

    @property
    def filters_space(self) -> bool:
        """Whether what G is applied to is not x."""
        return self.rows.shape[1] > 0 or not self.keeps_frames


@lru_cache(maxsize=64)
def low_rank(wanted: Filter, sizes: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> LowRank | None:
    """The matrices of `wanted` for clips of `sizes` (T, H, W); None where its rank is too high to be worth it."""
    frames, height, width = sizes
    nothing = np.zeros((frames, 0))
    keeps_pixels, temporal, joint = True, nothing, nothing
    if wanted.joint:
        passes = wanted.passes(*sizes)
    else:
        passes = wanted.space_passes(height, width)[None]
        keeps_pixels, kept = _smaller(wanted.time_passes(frames))
        temporal, _ = modes(frames, kept)
    keeps_frames, kept = _smaller(passes)
    rows, row_of = modes(height, _along(kept, 1))
    columns, column_of = modes(width, _along(kept, 2))
    volume_of = np.zeros(1, dtype=int)
    if wanted.joint and kept.any():
        joint, volume_of = modes(frames, _along(kept, 0))
    weights = kept[np.ix_(volume_of, row_of, column_of)] * (-1.0 if keeps_frames else 1.0)
    if max(rows.shape[1], columns.shape[1]) > MOST_SPATIAL_MODES or (wanted.time and frames > MOST_FRAMES):
        return None

    def tensor(array: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, dtype)

    return LowRank(
        keeps_pixels=keeps_pixels,
        temporal=tensor(temporal),
        keeps_frames=keeps_frames,
        rows=tensor(rows),
        columns=tensor(columns.T),
        weights=tensor(weights),
        joint=tensor(joint),
    )


def modes(length: int, harmonics: Harmonics) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """The orthonormal real Fourier modes of the wanted harmonics of an axis.

    Args:
        length: N.
        harmonics: (N // 2 + 1,) which harmonics are wanted.

    Returns:
        (N, r) one mode a column, and (r,) the harmonic of each: 0 and, for even N, N / 2 have one mode, the others two.
    """
    columns, owners = [], []
    for k in np.flatnonzero(harmonics):
        # The angle modulo a turn, taken in integers, keeps the modes exact to the last bit for long axes.
        turns = np.arange(length) * k % length / length
        if 2 * k % length == 0:
            waves = [np.cos(2 * np.pi * turns) / np.sqrt(length)]
        else:
            waves = [np.sqrt(2 / length) * wave(2 * np.pi * turns) for wave in (np.cos, np.sin)]
        columns += waves
        owners += [k] * len(waves)
    table = np.stack(columns, axis=1) if columns else np.zeros((length, 0))
    return table, np.array(owners, dtype=int)


def _smaller(passes: Harmonics) -> tuple[bool, Harmonics]:
    """Whether to subtract, and what: the harmonics dropped if they span fewer modes a side than those kept."""
    kept, dropped = (_extent(side) for side in (passes, ~passes))
    return (True, ~passes) if dropped <= kept else (False, passes)


def _extent(harmonics: Harmonics) -> int:
    """How many harmonics a set spans along its axes, added up."""
    return sum(int(_along(harmonics, axis).sum()) for axis in range(harmonics.ndim))


def _along(harmonics: Harmonics, axis: int) -> Harmonics:
    """Which harmonics of one axis a set has."""
    return np.asarray(harmonics.any(tuple(other for other in range(harmonics.ndim) if other != axis)))
