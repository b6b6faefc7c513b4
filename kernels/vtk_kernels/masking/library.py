"""The masking operators as torch sees them: a schema, a rule of shapes, a derivative; inside each, dispatch picks.

Shapes are as in `ops`, which checks them; `pos` is (N, C), `prefix` (1 or B, P, C), `fill` (C, height, width).
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from vtk_kernels.dispatch import which
from vtk_kernels.masking.reference import accumulator

_SEEDS = 1 << 64


def as_int64(word: int) -> int:
    """The 64 bits as torch passes them: two's complement."""
    return word - _SEEDS if word >= _SEEDS // 2 else word


def _backend(function: str, device: torch.device) -> Any:
    """The module with the functions of `reference`, in the backend chosen for `device`."""
    return importlib.import_module(f"vtk_kernels.masking.{which(function, device)}")


@torch.library.custom_op("vtk_kernels::random_keep", mutates_args=())
def random_keep(batch: int, tokens: int, keep: int, seed: int, step: int, device: torch.device) -> Tensor:
    """Draw the kept tokens; `seed` and `step` are 64 bits in two's complement."""
    backend = _backend("random_keep", device)
    if tokens > getattr(backend, "MOST_TOKENS", tokens):
        backend = importlib.import_module("vtk_kernels.masking.reference")
    drawn: Tensor = backend.random_keep(batch, tokens, keep, seed % _SEEDS, step % _SEEDS, device)
    return drawn


@random_keep.register_fake
def _(batch: int, tokens: int, keep: int, seed: int, step: int, device: torch.device) -> Tensor:
    return torch.empty(batch, keep, dtype=torch.int64, device=device)


@torch.library.custom_op("vtk_kernels::keep_tokens", mutates_args=())
def keep_tokens(x: Tensor, keep: Tensor, pos: Tensor | None, prefix: Tensor | None) -> Tensor:
    """(B, P + K, C) of the promoted type."""
    rows: Tensor = _backend("keep_tokens", x.device).keep_tokens(x, keep, pos, prefix, _promoted(x, pos, prefix))
    return rows


@keep_tokens.register_fake
def _(x: Tensor, keep: Tensor, pos: Tensor | None, prefix: Tensor | None) -> Tensor:
    before = 0 if prefix is None else prefix.shape[1]
    return x.new_empty(x.shape[0], before + keep.shape[1], x.shape[2], dtype=_promoted(x, pos, prefix))


def _promoted(*tensors: Tensor | None) -> torch.dtype:
    first, *others = (tensor.dtype for tensor in tensors if tensor is not None)
    for other in others:
        first = torch.promote_types(first, other)
    return first


@torch.library.custom_op("vtk_kernels::keep_tokens_backward", mutates_args=())
def keep_tokens_backward(
    grad: Tensor, keep: Tensor, tokens: int, dtype: torch.dtype, need_x: bool, need_pos: bool
) -> tuple[Tensor, Tensor]:
    """The adjoint of `keep_tokens`: the gradients of x, of `dtype`, and of pos, summed; empty where not needed."""
    backend = _backend("keep_tokens", grad.device)
    grads: tuple[Tensor, Tensor] = backend.keep_tokens_backward(grad, keep, tokens, dtype, need_x, need_pos)
    return grads


@keep_tokens_backward.register_fake
def _(
    grad: Tensor, keep: Tensor, tokens: int, dtype: torch.dtype, need_x: bool, need_pos: bool
) -> tuple[Tensor, Tensor]:
    channels = grad.shape[2]
    return (
        grad.new_empty((grad.shape[0], tokens, channels) if need_x else (0,), dtype=dtype),
        grad.new_empty((tokens, channels) if need_pos else (0,), dtype=accumulator(grad.dtype)),
    )


def _keep_tokens_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, keep, pos, prefix = inputs
    ctx.save_for_backward(keep)
    ctx.tokens, ctx.dtype = x.shape[1], x.dtype
    ctx.pos_dtype = None if pos is None else pos.dtype
    ctx.prefix_shape = None if prefix is None else prefix.shape
    ctx.prefix_dtype = None if prefix is None else prefix.dtype


def _keep_tokens_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (keep,) = ctx.saved_tensors
    need_x, _, need_pos, need_prefix = ctx.needs_input_grad
    grad_x = grad_pos = grad_prefix = None
    if need_x or need_pos:
        for_x, for_pos = keep_tokens_backward(grad, keep, ctx.tokens, ctx.dtype, need_x, need_pos)
        grad_x = for_x if need_x else None
        grad_pos = for_pos.to(ctx.pos_dtype) if need_pos else None
    if need_prefix:
        grad_prefix = grad[:, : ctx.prefix_shape[1]]
        if ctx.prefix_shape[0] != grad.shape[0]:
            grad_prefix = grad_prefix.sum(dim=0, keepdim=True, dtype=accumulator(grad.dtype))
        grad_prefix = grad_prefix.to(ctx.prefix_dtype)
    return grad_x, None, grad_pos, grad_prefix


keep_tokens.register_autograd(_keep_tokens_gradient, setup_context=_keep_tokens_context)


def _keep_tokens_backward_context(
    ctx: Any,
    inputs: tuple[Any, ...],
    output: tuple[Tensor, Tensor],
) -> None:
    grad, keep, _, _, ctx.need_x, ctx.need_pos = inputs
    ctx.save_for_backward(keep)
    ctx.shape, ctx.dtype = grad.shape, grad.dtype


def _keep_tokens_backward_gradient(ctx: Any, for_x: Tensor, for_pos: Tensor) -> tuple[Tensor | None, ...]:
    """The operator is linear, so the derivative of its adjoint is itself; the prefix has no part in it."""
    (keep,) = ctx.saved_tensors
    rows = for_pos[keep] if ctx.need_pos else None
    if ctx.need_x:
        rows = keep_tokens(for_x, keep, for_pos if ctx.need_pos else None, None)
    if rows is None:
        return None, None, None, None, None, None
    before = rows.new_zeros(ctx.shape[0], ctx.shape[1] - keep.shape[1], ctx.shape[2])
    return torch.cat((before, rows), dim=1).to(ctx.dtype), None, None, None, None, None


keep_tokens_backward.register_autograd(_keep_tokens_backward_gradient, setup_context=_keep_tokens_backward_context)


@torch.library.custom_op("vtk_kernels::keep_patches", mutates_args=())
def keep_patches(image: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """(B, K, C * height * width)."""
    patches: Tensor = _backend("keep_patches", image.device).keep_patches(image, keep, height, width)
    return patches


@keep_patches.register_fake
def _(image: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    return image.new_empty(image.shape[0], keep.shape[1], image.shape[1] * height * width)


@torch.library.custom_op("vtk_kernels::place_patches", mutates_args=())
def place_patches(
    patches: Tensor, keep: Tensor, channels: int, rows: int, columns: int, height: int, width: int
) -> Tensor:
    """The adjoint of `keep_patches`: an image that is zero outside the kept patches."""
    backend = _backend("keep_patches", patches.device)
    image: Tensor = backend.place_patches(patches, keep, channels, rows, columns, height, width)
    return image


@place_patches.register_fake
def _(patches: Tensor, keep: Tensor, channels: int, rows: int, columns: int, height: int, width: int) -> Tensor:
    return patches.new_empty(patches.shape[0], channels, rows * height, columns * width)


def _keep_patches_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, keep, ctx.height, ctx.width = inputs
    ctx.save_for_backward(keep)
    ctx.channels, ctx.rows, ctx.columns = image.shape[1], image.shape[2] // ctx.height, image.shape[3] // ctx.width


def _keep_patches_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (keep,) = ctx.saved_tensors
    image = place_patches(grad, keep, ctx.channels, ctx.rows, ctx.columns, ctx.height, ctx.width)
    return image, None, None, None


keep_patches.register_autograd(_keep_patches_gradient, setup_context=_keep_patches_context)


def _place_patches_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.height, ctx.width = inputs[5:]


def _place_patches_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return keep_patches(grad, *ctx.saved_tensors, ctx.height, ctx.width), None, None, None, None, None, None


place_patches.register_autograd(_place_patches_gradient, setup_context=_place_patches_context)


@torch.library.custom_op("vtk_kernels::mask_patches", mutates_args=())
def mask_patches(image: Tensor, keep: Tensor, fill: Tensor) -> Tensor:
    """The image inside the kept patches, `fill`, cast to the image's type, outside."""
    masked: Tensor = _backend("mask_patches", image.device).mask_patches(image, keep, fill.to(image.dtype))
    return masked


@mask_patches.register_fake
def _(image: Tensor, keep: Tensor, fill: Tensor) -> Tensor:
    return torch.empty_like(image, memory_format=torch.contiguous_format)


@torch.library.custom_op("vtk_kernels::fill_gradient", mutates_args=())
def fill_gradient(grad: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """The gradient of `fill`: the sum over samples and patches that are not kept."""
    sums: Tensor = _backend("mask_patches", grad.device).fill_gradient(grad, keep, height, width)
    return sums


@fill_gradient.register_fake
def _(grad: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    return grad.new_empty(grad.shape[1], height, width, dtype=accumulator(grad.dtype))


def _mask_patches_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, keep, fill = inputs
    ctx.save_for_backward(keep)
    ctx.height, ctx.width = fill.shape[1:]
    ctx.dtype = fill.dtype


def _mask_patches_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (keep,) = ctx.saved_tensors
    need_image, _, need_fill = ctx.needs_input_grad
    nothing = grad.new_zeros(grad.shape[1], ctx.height, ctx.width)
    image = mask_patches(grad, keep, nothing) if need_image else None
    fill = fill_gradient(grad, keep, ctx.height, ctx.width).to(ctx.dtype) if need_fill else None
    return image, None, fill


mask_patches.register_autograd(_mask_patches_gradient, setup_context=_mask_patches_context)


def _fill_gradient_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, keep, _, _ = inputs
    ctx.save_for_backward(keep)
    ctx.shape, ctx.dtype = grad.shape, grad.dtype


def _fill_gradient_gradient(ctx: Any, for_fill: Tensor) -> tuple[Tensor | None, ...]:
    (keep,) = ctx.saved_tensors
    nothing = for_fill.new_zeros(ctx.shape, dtype=ctx.dtype)
    return mask_patches(nothing, keep, for_fill.to(ctx.dtype)), None, None, None


fill_gradient.register_autograd(_fill_gradient_gradient, setup_context=_fill_gradient_context)
