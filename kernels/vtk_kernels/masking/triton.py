"""The masking operators in Triton: what is launched, with which tiles; the kernels are in `triton_kernels.py`.

A sum over many samples is cut into parts, which are added in order afterwards. A token out of range cannot be refused
without waiting for the GPU: it reads as NaN (0 in uint8), and its gradient is dropped.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from vtk_kernels.masking.reference import accumulator
from vtk_kernels.masking.triton_kernels import (
    compose_patches_kernel,
    fill_gradient_kernel,
    keep_patches_kernel,
    keep_tokens_backward_kernel,
    keep_tokens_kernel,
    random_keep_kernel,
    write_places_kernel,
)

MOST_TOKENS = 16384
"""`random_keep` holds the keys of a sample in registers; beyond this many it does not run."""
_TILE = 2048
_PART = 16
"""A sum is cut into parts of this many terms, so that there is work for the whole GPU; the parts are added in order."""


def random_keep(batch: int, tokens: int, keep: int, seed: int, step: int, device: torch.device) -> Tensor:
    """See `reference.random_keep`."""
    if tokens > MOST_TOKENS:
        raise ValueError(f"tokens: the Triton kernel takes at most {MOST_TOKENS}, got {tokens}")
    kept = torch.empty(batch, keep, dtype=torch.int64, device=device)
    if kept.numel():
        block = triton.next_power_of_2(tokens)
        words = (_signed(seed), _signed(seed >> 32), _signed(step), _signed(step >> 32))
        random_keep_kernel[(batch,)](kept, tokens, keep, *words, BLOCK=block, num_warps=max(1, min(8, block // 256)))
    return kept


def keep_tokens(x: Tensor, keep: Tensor, pos: Tensor | None, prefix: Tensor | None, out: torch.dtype) -> Tensor:
    """See `reference.keep_tokens`."""
    batch, tokens, channels = x.shape
    before = 0 if prefix is None else prefix.shape[1]
    rows = x.new_empty(batch, before + keep.shape[1], channels, dtype=out)
    if rows.numel():
        tile_rows, tile = _row_tile(channels)
        count = rows.shape[0] * rows.shape[1]
        keep_tokens_kernel[(triton.cdiv(count, tile_rows), triton.cdiv(channels, tile))](
            x.contiguous(),
            keep.contiguous(),
            x if pos is None else pos.contiguous(),
            x if prefix is None else prefix.contiguous(),
            rows,
            count,
            tokens,
            keep.shape[1],
            before,
            channels,
            0 if prefix is None or len(prefix) == 1 else before * channels,
            HAS_POS=pos is not None,
            HAS_PREFIX=before > 0,
            WIDE=out == torch.float64,
            ROWS=tile_rows,
            TILE=tile,
        )
    return rows


def keep_tokens_backward(
    grad: Tensor, keep: Tensor, tokens: int, dtype: torch.dtype, need_x: bool, need_pos: bool
) -> tuple[Tensor, Tensor]:
    """See `reference.keep_tokens_backward`."""
    batch, rows, channels = grad.shape
    grad = grad.contiguous()
    grad_x = grad.new_empty((batch, tokens, channels) if need_x else 0, dtype=dtype)
    part = _PART if need_pos else 1
    parts = triton.cdiv(batch, part)
    sums = grad.new_empty((parts, tokens, channels) if need_pos else 0, dtype=accumulator(grad.dtype))
    if batch * tokens * channels:
        tile_rows, tile = _row_tile(channels)
        keep_tokens_backward_kernel[(triton.cdiv(tokens, tile_rows), triton.cdiv(channels, tile), parts)](
            grad,
            _places(keep, tokens),
            grad_x,
            sums,
            batch,
            tokens,
            keep.shape[1],
            rows - keep.shape[1],
            channels,
            PART=part,
            NEED_X=need_x,
            NEED_POS=need_pos,
            WIDE=grad.dtype == torch.float64,
            ROWS=tile_rows,
            TILE=tile,
        )
    return grad_x, sums.sum(dim=0) if need_pos else sums


def keep_patches(image: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """See `reference.keep_patches`."""
    batch, channels, whole_height, whole_width = image.shape
    patches = image.new_empty(batch, keep.shape[1], channels * height * width)
    if patches.numel():
        lines, wide = _patch_tile(width)
        keep_patches_kernel[(batch * keep.shape[1], triton.cdiv(channels * height, lines), triton.cdiv(width, wide))](
            image.contiguous(),
            keep.contiguous(),
            patches,
            keep.shape[1],
            channels * height,
            whole_height,
            whole_width,
            HEIGHT=height,
            WIDTH=width,
            FLOATING=image.is_floating_point(),
            LINES=lines,
            WIDE=wide,
        )
    return patches


def place_patches(
    patches: Tensor, keep: Tensor, channels: int, rows: int, columns: int, height: int, width: int
) -> Tensor:
    """See `reference.place_patches`."""
    image = patches.new_empty(len(patches), channels, rows * height, columns * width)
    _compose(image, patches.contiguous(), patches, keep, height, width, from_patches=True)
    return image


def mask_patches(image: Tensor, keep: Tensor, fill: Tensor) -> Tensor:
    """See `reference.mask_patches`."""
    _, height, width = fill.shape
    masked = torch.empty_like(image, memory_format=torch.contiguous_format)
    _compose(masked, image.contiguous(), fill.contiguous(), keep, height, width, from_patches=False)
    return masked


def fill_gradient(grad: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """See `reference.fill_gradient`."""
    batch, channels, whole_height, whole_width = grad.shape
    columns = whole_width // width
    tokens = whole_height // height * columns
    parts = triton.cdiv(tokens, _PART)
    sums = grad.new_zeros(batch * parts, channels, height, width, dtype=accumulator(grad.dtype))
    if grad.numel():
        count = channels * height * width
        fill_gradient_kernel[(batch, triton.cdiv(count, 256), parts)](
            grad.contiguous(),
            _places(keep, tokens),
            sums,
            tokens,
            columns,
            count,
            whole_height,
            whole_width,
            HEIGHT=height,
            WIDTH=width,
            PART=_PART,
            BLOCK=256,
        )
    return sums.sum(dim=0)


def _compose(
    image: Tensor, kept: Tensor, other: Tensor, keep: Tensor, height: int, width: int, *, from_patches: bool
) -> None:
    """Write `image`: kept patches from `kept` (an image, or patches), the rest from `other` (a fill), or zero."""
    batch, channels, whole_height, whole_width = image.shape
    if not image.numel():
        return
    columns = whole_width // width
    lines, wide = 8, triton.next_power_of_2(width)
    some = max(1, min(triton.next_power_of_2(columns), _TILE // (lines * wide)))
    count = batch * channels * whole_height
    compose_patches_kernel[(triton.cdiv(count, lines), triton.cdiv(columns, some))](
        kept,
        other,
        _places(keep, whole_height // height * columns),
        image,
        count,
        channels,
        whole_height,
        columns,
        keep.shape[1],
        HEIGHT=height,
        WIDTH=width,
        FROM_PATCHES=from_patches,
        LINES=lines,
        SOME=some,
        WIDE=wide,
    )


def _places(keep: Tensor, tokens: int) -> Tensor:
    """(B, N) int32: where in `keep` each token stands; -1 for those not kept."""
    places = torch.full((len(keep), tokens), -1, dtype=torch.int32, device=keep.device)
    if keep.numel():
        write_places_kernel[(triton.cdiv(keep.numel(), 256),)](
            keep.contiguous(), places, keep.numel(), keep.shape[1], tokens, BLOCK=256
        )
    return places


def _row_tile(channels: int) -> tuple[int, int]:
    """(rows, channels) of a tile: no wider than a row, at most 1,024, and wasteful only for narrow odd rows."""
    tile = min(1024, triton.next_power_of_2(channels))
    while tile > 128 and channels % tile:
        tile //= 2
    return max(1, _TILE // tile), tile


def _patch_tile(width: int) -> tuple[int, int]:
    wide = min(256, triton.next_power_of_2(width))
    return max(1, 1024 // wide), wide


def _signed(word: int) -> int:
    """The low 32 bits as a signed number: always an i32 argument, whatever its value."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word
