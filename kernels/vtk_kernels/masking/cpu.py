"""The masking operators in C++ (`cpu.cpp`): what is allocated here is written there. See `reference` for the shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from vtk_kernels.dispatch import cpu_module, threads
from vtk_kernels.masking.reference import accumulator


def random_keep(batch: int, tokens: int, keep: int, seed: int, step: int, device: torch.device) -> Tensor:
    """See `reference.random_keep`."""
    kept = torch.empty(batch, keep, dtype=torch.int64, device=device)
    cpu_module("masking").random_keep(kept, tokens, seed, step, threads())
    return kept


def keep_tokens(x: Tensor, keep: Tensor, pos: Tensor | None, prefix: Tensor | None, out: torch.dtype) -> Tensor:
    """See `reference.keep_tokens`."""
    if out not in {x.dtype, torch.float32}:
        x = x.to(out)
    before = 0 if prefix is None else prefix.shape[1]
    rows = x.new_empty(len(x), before + keep.shape[1], x.shape[2], dtype=out)
    cpu_module("masking").keep_tokens(
        _plain(x),
        _plain(keep),
        None if pos is None else _plain(pos.to(out)),
        None if prefix is None else _plain(prefix.to(out)),
        rows,
        threads(),
    )
    return rows


def keep_tokens_backward(
    grad: Tensor, keep: Tensor, tokens: int, dtype: torch.dtype, need_x: bool, need_pos: bool
) -> tuple[Tensor, Tensor]:
    """See `reference.keep_tokens_backward`."""
    here = grad.dtype if grad.dtype == torch.float64 else dtype
    grad_x = grad.new_empty((len(grad), tokens, grad.shape[2]) if need_x else 0, dtype=here)
    grad_pos = grad.new_empty((tokens, grad.shape[2]) if need_pos else 0, dtype=accumulator(grad.dtype))
    cpu_module("masking").keep_tokens_backward(
        _plain(grad), _plain(keep), grad_x if need_x else None, grad_pos if need_pos else None, tokens, threads()
    )
    return grad_x.to(dtype), grad_pos


def keep_patches(image: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """See `reference.keep_patches`."""
    patches = image.new_empty(len(image), keep.shape[1], image.shape[1] * height * width)
    cpu_module("masking").keep_patches(_plain(image), _plain(keep), patches, height, width, threads())
    return patches


def place_patches(
    patches: Tensor, keep: Tensor, channels: int, rows: int, columns: int, height: int, width: int
) -> Tensor:
    """See `reference.place_patches`."""
    image = patches.new_empty(len(patches), channels, rows * height, columns * width)
    cpu_module("masking").place_patches(_plain(patches), _plain(keep), image, height, width, threads())
    return image


def mask_patches(image: Tensor, keep: Tensor, fill: Tensor) -> Tensor:
    """See `reference.mask_patches`."""
    masked = torch.empty_like(image, memory_format=torch.contiguous_format)
    cpu_module("masking").mask_patches(_plain(image), _plain(keep), _plain(fill), masked, threads())
    return masked


def fill_gradient(grad: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """See `reference.fill_gradient`."""
    sums = grad.new_empty(grad.shape[1], height, width, dtype=accumulator(grad.dtype))
    cpu_module("masking").fill_gradient(_plain(grad), _plain(keep), sums, threads())
    return sums


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()
