"""The frequency filter in Triton: y = G (s x + R m(R^T x W^T) W), see `lowrank.py`.

`_filter_tiles` reads and writes each element of the clip once: a program holds a few pixels of one row with all their
frames in registers, adds the spatial modes and applies G down the columns, which lie whole in one thread each. Where
only time is filtered a frame is one long row and has no spatial modes. Their coefficients are found first by
`_project`, whose read brings the clip into the second-level cache. A result has the same bits in every run: parts of
sums are added in order, and nothing is added atomically.

uint8 frames are read where they lie, (B, T, H, W, C): only strides differ.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vtk_kernels.frequency.lowrank import LowRank

_TILE = 8192
"""Elements of a tile: 64 registers for each of 128 threads."""
_THREADS = 128
_ROWS, _COLUMNS = 32, 128
"""Pixels of a frame, at most, that a program of `_project` reduces to one part of its coefficients."""


def frequency_filter(clip: Tensor, matrices: LowRank, apply: Tensor | None) -> Tensor:
    """See `cpu.frequency_filter`."""
    out = torch.empty_like(clip)
    one = matrices.temporal.new_ones(clip.shape[1])
    return _run(clip, (one, torch.zeros_like(one)), out, matrices, apply, clip.stride())


def frequency_filter_frames(
    frames: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype, matrices: LowRank, apply: Tensor | None
) -> Tensor:
    """See `cpu.frequency_filter_frames`."""
    clip = frames.permute(0, 4, 1, 2, 3)
    out = torch.empty(clip.shape, dtype=dtype, device=frames.device)
    return _run(clip, (scale, shift), out, matrices, apply, clip.stride())


def _run(
    clip: Tensor,
    normalization: tuple[Tensor, Tensor],
    out: Tensor,
    matrices: LowRank,
    apply: Tensor | None,
    strides: tuple[int, ...],
) -> Tensor:
    """Fill `out`. A row of the tiles is a row of pixels, or the whole frame where only time is filtered."""
    batch, channels, frames, height, width = clip.shape
    if clip.numel() == 0:
        return out
    modes = _spatial_modes(clip, normalization, matrices, strides)
    rows, columns = (1, height * width) if modes is None else (height, width)
    # Where time is not filtered the frames of a tile have nothing to do with one another: any number will do.
    held = triton.next_power_of_2(frames) if matrices.filters_time else min(8, triton.next_power_of_2(frames))
    block = min(max(_TILE // held, _THREADS), max(16, triton.next_power_of_2(columns)))
    grid = (batch * channels * rows * triton.cdiv(columns, block), triton.cdiv(frames, held))
    _filter_tiles[grid](
        clip,
        *normalization,
        out,
        clip if apply is None else apply.to(torch.uint8),
        matrices.temporal,
        matrices.columns,
        out if modes is None else modes,
        channels,
        frames,
        rows,
        columns,
        matrices.temporal.shape[1],
        matrices.columns.shape[0],
        *strides[:3],
        strides[3] if modes is not None else 0,
        strides[4],
        APPLY=apply is not None,
        NORMALIZE=clip.dtype == torch.uint8,
        TIME=matrices.filters_time,
        KEEPS_PIXELS=matrices.keeps_pixels,
        SPACE=modes is not None,
        KEEPS_FRAMES=matrices.keeps_frames,
        COMPUTE=tl.float64 if out.dtype == torch.float64 else tl.float32,
        FRAMES=held,
        BLOCK=block,
        num_warps=4,
    )
    return out


def _spatial_modes(
    clip: Tensor, normalization: tuple[Tensor, Tensor], matrices: LowRank, strides: tuple[int, ...]
) -> Tensor | None:
    """(B*C, H, W modes, T): what each row of pixels is made of, R m(R^T x W^T); None where space is not filtered."""
    if not matrices.filters_space:
        return None
    batch, channels, frames, height, width = clip.shape
    row_modes, column_modes = matrices.rows.shape[1], matrices.columns.shape[0]
    size = [max(16, min(most, triton.next_power_of_2(side))) for most, side in ((_ROWS, height), (_COLUMNS, width))]
    parts = triton.cdiv(height, size[0]), triton.cdiv(width, size[1])
    sums = matrices.rows.new_empty(batch * channels, frames, parts[0] * parts[1], row_modes, column_modes)
    _project[(batch * channels * frames, *parts)](
        clip,
        *normalization,
        matrices.rows,
        matrices.columns,
        sums,
        channels,
        frames,
        height,
        width,
        row_modes,
        column_modes,
        *strides,
        NORMALIZE=clip.dtype == torch.uint8,
        COMPUTE=tl.float64 if sums.dtype == torch.float64 else tl.float32,
        ROWS=size[0],
        COLUMNS=size[1],
        num_warps=4,
    )
    coefficients = sums.sum(2)  # (B*C, T, row modes, column modes): a few numbers a frame
    if matrices.joint.shape[1]:
        coefficients = torch.einsum("tv,ntij->nvij", matrices.joint, coefficients) * matrices.weights
        coefficients = torch.einsum("tv,nvij->ntij", matrices.joint, coefficients)
    else:
        coefficients = coefficients * matrices.weights
    return torch.einsum("hi,ntij->nhjt", matrices.rows, coefficients).contiguous()


@triton.jit
def _load(place, inside, scale, shift, NORMALIZE: tl.constexpr, COMPUTE: tl.constexpr):
    """The values at `place` in the type of the arithmetic, normalised if they are bytes; 0 where not `inside`."""
    values = tl.load(place, mask=inside, other=0).to(COMPUTE)
    if NORMALIZE:
        values = tl.where(inside, values * scale + shift, 0.0)
    return values


@triton.jit
def _project(
    clip,
    scales,
    shifts,
    rows,
    columns,
    sums,
    channels,
    frames,
    height,
    width,
    row_modes,
    column_modes,
    batch_stride,
    channel_stride,
    frame_stride,
    row_stride,
    column_stride,
    NORMALIZE: tl.constexpr,
    COMPUTE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """R^T x W^T of a part of one frame -> sums (volume, frame, part, row mode, column mode)."""
    frame = tl.program_id(0)
    volume, t = frame // frames, frame % frames
    channel = volume % channels
    start = (volume // channels).to(tl.int64) * batch_stride + channel.to(tl.int64) * channel_stride
    start += t.to(tl.int64) * frame_stride
    h = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    w = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (h < height)[:, None] & (w < width)[None, :]
    place = clip + start + h[:, None].to(tl.int64) * row_stride + w[None, :].to(tl.int64) * column_stride
    x = _load(place, inside, tl.load(scales + channel), tl.load(shifts + channel), NORMALIZE, COMPUTE)
    part = (frame.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2) + tl.program_id(2)
    for i in range(row_modes):
        r = tl.load(rows + h * row_modes + i, mask=h < height, other=0.0)
        along = tl.sum(x * r[:, None], axis=0)
        for j in range(column_modes):
            column = tl.load(columns + j * width + w, mask=w < width, other=0.0)
            tl.store(sums + (part * row_modes + i) * column_modes + j, tl.sum(along * column, axis=0))


@triton.jit
def _filter_tiles(
    clip,
    scales,
    shifts,
    out,
    apply,
    temporal,
    columns,
    modes,
    channels,
    frames,
    height,
    width,
    temporal_modes,
    column_modes,
    batch_stride,
    channel_stride,
    frame_stride,
    row_stride,
    column_stride,
    APPLY: tl.constexpr,
    NORMALIZE: tl.constexpr,
    TIME: tl.constexpr,
    KEEPS_PIXELS: tl.constexpr,
    SPACE: tl.constexpr,
    KEEPS_FRAMES: tl.constexpr,
    COMPUTE: tl.constexpr,
    FRAMES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """G (s x + modes . W) of BLOCK pixels of one row, FRAMES frames of each."""
    blocks = tl.cdiv(width, BLOCK)
    item = tl.program_id(0)
    row = item // blocks
    volume, h = row // height, row % height
    channel = volume % channels
    w = item % blocks * BLOCK + tl.arange(0, BLOCK)
    t = tl.program_id(1) * FRAMES + tl.arange(0, FRAMES)
    inside = (t < frames)[:, None] & (w < width)[None, :]
    start = (volume // channels).to(tl.int64) * batch_stride + channel.to(tl.int64) * channel_stride
    start += h.to(tl.int64) * row_stride
    place = clip + start + t[:, None].to(tl.int64) * frame_stride + w[None, :].to(tl.int64) * column_stride
    target = (volume.to(tl.int64) * frames + t[:, None]) * height * width + h * width + w[None, :]
    applies = True
    if APPLY:
        applies = tl.load(apply + volume // channels) != 0
    if applies:
        x = _load(place, inside, tl.load(scales + channel), tl.load(shifts + channel), NORMALIZE, COMPUTE)
        if SPACE:
            y = x if KEEPS_FRAMES else tl.zeros_like(x)
            for j in range(column_modes):
                q = tl.load(modes + (row.to(tl.int64) * column_modes + j) * frames + t, mask=t < frames, other=0.0)
                y += q[:, None] * tl.load(columns + j * width + w, mask=w < width, other=0.0)[None, :]
            x = y
        if TIME:
            y = x if KEEPS_PIXELS else tl.zeros_like(x)
            for r in range(temporal_modes):
                u = tl.load(temporal + t * temporal_modes + r, mask=t < frames, other=0.0)[:, None]
                along = u * tl.sum(x * u, axis=0)[None, :]
                y = y - along if KEEPS_PIXELS else y + along
            x = y
        tl.store(out + target, x.to(out.dtype.element_ty), mask=inside)
    elif NORMALIZE:
        x = _load(place, inside, tl.load(scales + channel), tl.load(shifts + channel), NORMALIZE, COMPUTE)
        tl.store(out + target, x.to(out.dtype.element_ty), mask=inside)
    else:
        tl.store(out + target, tl.load(place, mask=inside), mask=inside)
