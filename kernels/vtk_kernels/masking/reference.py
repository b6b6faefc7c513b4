"""The definition of the masking operators, in torch, written to be read; the other backends are held against it.

Shapes: B samples, N tokens (or patches of the grid, row by row), K kept, C channels, P prefix tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtk_kernels.philox import philox4x32

_WORD = 0xFFFFFFFF


def random_keep(batch: int, tokens: int, keep: int, seed: int, step: int, device: torch.device) -> Tensor:
    """(B, K) int64: the K smallest (key, i) of each sample, in the order of i."""
    sample = torch.arange(batch, device=device)[:, None].expand(batch, tokens)
    token = torch.arange(tokens, device=device).expand(batch, tokens)
    now = [token.new_full((batch, tokens), word) for word in (step & _WORD, step >> 32 & _WORD)]
    key = philox4x32(torch.stack((token, sample, *now), dim=-1), (seed & _WORD, seed >> 32 & _WORD))[..., 0]
    # A stable sort leaves equal keys in the order of i.
    return key.argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values


def keep_tokens(x: Tensor, keep: Tensor, pos: Tensor | None, prefix: Tensor | None, out: torch.dtype) -> Tensor:
    """(B, P + K, C) of dtype `out`; `pos` is (N, C), `prefix` (1 or B, P, C)."""
    _check(keep, x.shape[1])
    rows = x.gather(1, _index(keep, x.shape[2])).to(out)
    if pos is not None:
        rows = rows + pos.to(out)[keep]
    if prefix is not None:
        rows = torch.cat((prefix.to(out).expand(len(x), -1, -1), rows), dim=1)
    return rows


def keep_tokens_backward(
    grad: Tensor, keep: Tensor, tokens: int, dtype: torch.dtype, need_x: bool, need_pos: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of x, (B, N, C) of `dtype`, and of pos, (N, C) summed in float32 (float64); empty if not needed."""
    _check(keep, tokens)
    rows = grad[:, grad.shape[1] - keep.shape[1] :].to(accumulator(grad.dtype))
    every = rows.new_zeros(len(rows), tokens, rows.shape[2]).scatter(1, _index(keep, rows.shape[2]), rows)
    return (
        every.to(dtype) if need_x else every.new_empty(0, dtype=dtype),
        every.sum(dim=0) if need_pos else every.new_empty(0),
    )


def keep_patches(image: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """(B, K, C*height*width): the kept patches, each in the order (channel, row, column)."""
    patches = _patches(image, height, width)
    _check(keep, patches.shape[1])
    return patches.gather(1, _index(keep, patches.shape[2]))


def place_patches(
    patches: Tensor, keep: Tensor, channels: int, rows: int, columns: int, height: int, width: int
) -> Tensor:
    """(B, C, rows*height, columns*width): the adjoint of `keep_patches`, zero outside the kept patches."""
    _check(keep, rows * columns)
    every = patches.new_zeros(len(patches), rows * columns, patches.shape[2])
    every = every.scatter(1, _index(keep, patches.shape[2]), patches)
    grid = every.reshape(len(patches), rows, columns, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(len(patches), channels, rows * height, columns * width)


def mask_patches(image: Tensor, keep: Tensor, fill: Tensor) -> Tensor:
    """(B, C, H, W): `fill` (C, height, width) repeated, and the kept patches of `image`."""
    _, height, width = fill.shape
    rows, columns = image.shape[2] // height, image.shape[3] // width
    return torch.where(_kept(keep, rows, columns, height, width), image, fill.repeat(1, rows, columns))


def fill_gradient(grad: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """(C, height, width), float32 (float64): the sum over samples and the patches that are not kept."""
    rows, columns = grad.shape[2] // height, grad.shape[3] // width
    outside = grad.to(accumulator(grad.dtype)).masked_fill(_kept(keep, rows, columns, height, width), 0)
    return outside.reshape(*grad.shape[:2], rows, height, columns, width).sum(dim=(0, 2, 4))


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """What sums of `dtype` are kept in: float64 for float64, float32 for the rest."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _patches(image: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H, W) -> (B, N, C*height*width)."""
    batch, channels, whole_height, whole_width = image.shape
    rows, columns = whole_height // height, whole_width // width
    grid = image.reshape(batch, channels, rows, height, columns, width).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(batch, rows * columns, channels * height * width)


def _kept(keep: Tensor, rows: int, columns: int, height: int, width: int) -> Tensor:
    """(B, 1, rows*height, columns*width) bool: the pixels of the kept patches."""
    _check(keep, rows * columns)
    kept = torch.zeros(len(keep), rows * columns, dtype=torch.bool, device=keep.device).scatter(1, keep, value=True)
    return kept.view(len(keep), 1, rows, columns).repeat_interleave(height, 2).repeat_interleave(width, 3)


def _index(keep: Tensor, channels: int) -> Tensor:
    return keep[:, :, None].expand(-1, -1, channels)


def _check(keep: Tensor, tokens: int) -> None:
    """Refuse what is no set of tokens. On a GPU the look would cost a synchronisation; gather asserts there."""
    if keep.device.type != "cpu" or keep.numel() == 0:
        return
    if int(keep.min()) < 0 or int(keep.max()) >= tokens:
        raise ValueError(f"keep: expected tokens in [0, {tokens}), got {int(keep.min())} to {int(keep.max())}")
    if bool((keep.sort(dim=1).values.diff(dim=1) == 0).any()):
        raise ValueError("keep: a sample names a token twice")
