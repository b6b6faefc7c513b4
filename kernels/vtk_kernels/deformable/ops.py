"""The public functions of deformable attention: what goes in is checked here, then one backend runs.

Each function is a `torch.library` operator with a fake kernel and a backward operator, so `torch.compile` sees one
node, and the backend is chosen when it runs. Locations, softmax and sums are float32 (float64 with float64 values)
whatever the type of `value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from vtk_kernels import dispatch

MOST_LEVELS = 8
LONGEST_SIDE = 1 << 24
"""Of a map: a longer one has cells between the numbers that float32 can hold."""
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def deformable_attention(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    *,
    deterministic: bool = False,
) -> Tensor:
    """Multi-scale deformable attention (arXiv 2010.04159, eq. 3): softmax, locations, sampling and sum in one pass.

    out[b, q, m] = sum over l, p of softmax(logits[b, q, m])[l, p] * bilinear(level l of value[b, :, m], location)

    with location = reference + offset / (W, H) for points and centre + offset / P * size / 2 for boxes, in [0, 1] of
    each level, cells centred at (j + 0.5) / W (`grid_sample` with `align_corners=False`, zeros outside). A sample a
    cell or more away from the map's cell centres, or whose location is NaN or infinite, adds 0 and gets gradients 0.

    Args:
        value: (B, S, M, D) float64, float32, bfloat16 or float16; cell (i, j) of level l is row start_l + i * W_l + j.
        shapes: L pairs (H, W) as Python ints up to 2**24, 1 <= L <= 8, sum of H * W = S.
        reference: (B, Q, L, 2) points (x, y) or (B, Q, L, 4) boxes (x, y, w, h) in [0, 1].
        offsets: (B, Q, M, L, P, 2).
        logits: (B, Q, M, L*P).
        deterministic: the same bits in every run, also on a GPU; torch's global flag
            (`torch.use_deterministic_algorithms`) asks for it too. The CPU always gives the same bits, with any number
            of threads. On a GPU a gradient that is not finite then makes the gradient of all of `value` NaN.

    Returns:
        (B, Q, M*D) in the type of `value`. B and Q may be 0. Differentiable once, in all four tensors.

    Raises:
        ValueError: a shape, type or device does not fit; the message names the argument.
    """
    heads, sizes = _checked_value(value, shapes)
    B, _, M, _ = heads
    L = len(sizes) // 2
    Q = _checked_queries(offsets, "offsets", value, "(B, Q, M, L, P, 2)", (B, None, M, L, None, 2))
    P = offsets.shape[4]
    _checked_queries(logits, "logits", value, "(B, Q, M, L*P)", (B, Q, M, L * P))
    boxes = 4 if reference.ndim == 4 and reference.shape[-1] == 4 else 2
    _checked_queries(reference, "reference", value, "(B, Q, L, 2) or (B, Q, L, 4)", (B, Q, L, boxes))
    kind = torch.float64 if value.dtype == torch.float64 else torch.float32
    out: Tensor = _attention(value, sizes, reference.to(kind), offsets.to(kind), logits.to(kind), deterministic)
    return out


def sample_levels(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    *,
    deterministic: bool = False,
) -> Tensor:
    """The classic form: sampling at given locations, summed with given weights.

    `deformable_attention` is this at its own locations with the softmax of its logits.

    Args:
        value: (B, S, M, D) float64, float32, bfloat16 or float16.
        shapes: L pairs (H, W) as Python ints, 1 <= L <= 8, sum of H * W = S.
        locations: (B, Q, M, L, P, 2) as (x, y) in [0, 1] of each level.
        weights: (B, Q, M, L, P), any numbers.
        deterministic: as in `deformable_attention`.

    Returns:
        (B, Q, M*D) in the type of `value`.

    Raises:
        ValueError: a shape, type or device does not fit; the message names the argument.
    """
    heads, sizes = _checked_value(value, shapes)
    B, _, M, _ = heads
    L = len(sizes) // 2
    Q = _checked_queries(locations, "locations", value, "(B, Q, M, L, P, 2)", (B, None, M, L, None, 2))
    _checked_queries(weights, "weights", value, "(B, Q, M, L, P)", (B, Q, M, L, locations.shape[4]))
    kind = torch.float64 if value.dtype == torch.float64 else torch.float32
    out: Tensor = _levels(value, sizes, locations.to(kind), weights.to(kind), deterministic)
    return out


def _checked_value(value: Tensor, shapes: Sequence[tuple[int, int]]) -> tuple[torch.Size, list[int]]:
    if value.ndim != 4 or value.shape[2] < 1 or value.shape[3] < 1:
        raise ValueError(f"value: expected (B, S, M, D) with M and D at least 1, got {tuple(value.shape)}")
    if value.dtype not in _FLOATS:
        raise ValueError(f"value: expected float64, float32, bfloat16 or float16, got {value.dtype}")
    if not 1 <= len(shapes) <= MOST_LEVELS or any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"shapes: expected 1 to {MOST_LEVELS} pairs (H, W), got {shapes}")
    if any(not 1 <= side <= LONGEST_SIDE for shape in shapes for side in shape):
        raise ValueError(f"shapes: expected H and W of 1 to {LONGEST_SIDE}, got {shapes}")
    cells = sum(H * W for H, W in shapes)
    if cells != value.shape[1]:
        raise ValueError(f"shapes: {shapes} have {cells} cells, but value {tuple(value.shape)} has {value.shape[1]}")
    return value.shape, [side for shape in shapes for side in shape]


def _checked_queries(tensor: Tensor, name: str, value: Tensor, form: str, expected: tuple[int | None, ...]) -> int:
    """The number of queries, Q, of a tensor that fits `value`. None in `expected` is any Q, or any P of at least 1."""
    found = tuple(tensor.shape)
    fits = len(found) == len(expected) and all(e is None or e == f for e, f in zip(expected, found, strict=True))
    if not fits or (expected[-2:-1] == (None,) and found[-2] < 1):
        wanted = ", ".join("any" if side is None else str(side) for side in expected)
        raise ValueError(f"{name}: expected {form} = ({wanted}) for value {tuple(value.shape)}, got {found}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name}: expected floating point, got {tensor.dtype}")
    if tensor.device != value.device:
        raise ValueError(f"{name}: expected it on {value.device} with value, got {tensor.device}")
    return found[1]


@torch.library.custom_op("vtk_kernels::deformable_attention", mutates_args=())
def _attention(
    value: Tensor, shapes: Sequence[int], reference: Tensor, offsets: Tensor, logits: Tensor, deterministic: bool
) -> Tensor:
    backend = _backend("deformable_attention", value)
    out: Tensor = backend.deformable_attention(*_ready(value, shapes, reference, offsets, logits))
    return out


@_attention.register_fake
def _(
    value: Tensor, shapes: Sequence[int], reference: Tensor, offsets: Tensor, logits: Tensor, deterministic: bool
) -> Tensor:
    return value.new_empty(offsets.shape[0], offsets.shape[1], value.shape[2] * value.shape[3])


@torch.library.custom_op("vtk_kernels::deformable_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor,
    value: Tensor,
    shapes: Sequence[int],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    backend = _backend("deformable_attention", value)
    inputs = _ready(value, shapes, reference, offsets, logits)
    grads = backend.deformable_attention_backward(grad.detach().contiguous(), *inputs, _in_order(deterministic))
    return grads[0].to(value.dtype), grads[1], grads[2], grads[3]


@_attention_backward.register_fake
def _(
    grad: Tensor,
    value: Tensor,
    shapes: Sequence[int],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty(value), _empty(reference), _empty(offsets), _empty(logits)


@torch.library.custom_op("vtk_kernels::sample_levels", mutates_args=())
def _levels(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor, deterministic: bool) -> Tensor:
    out: Tensor = _backend("sample_levels", value).sample_levels(*_ready(value, shapes, locations, weights))
    return out


@_levels.register_fake
def _(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor, deterministic: bool) -> Tensor:
    return value.new_empty(locations.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


@torch.library.custom_op("vtk_kernels::sample_levels_backward", mutates_args=())
def _levels_backward(
    grad: Tensor, value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor, deterministic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    backend = _backend("sample_levels", value)
    inputs = _ready(value, shapes, locations, weights)
    grads = backend.sample_levels_backward(grad.detach().contiguous(), *inputs, _in_order(deterministic))
    return grads[0].to(value.dtype), grads[1], grads[2]


@_levels_backward.register_fake
def _(
    grad: Tensor, value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor, deterministic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(value), _empty(locations), _empty(weights)


def _backend(function: str, value: Tensor) -> Any:
    """The module whose four functions (two operators, two gradients) run on the device of `value`."""
    return import_module(f"vtk_kernels.deformable.{dispatch.which(function, value.device)}")


def _ready(value: Tensor, shapes: Sequence[int], *queries: Tensor) -> tuple[Any, ...]:
    """What a backend takes: contiguous tensors outside autograd, and shapes as pairs."""
    pairs = list(zip(shapes[::2], shapes[1::2], strict=True))
    return value.detach().contiguous(), pairs, *(tensor.detach().contiguous() for tensor in queries)


def _in_order(deterministic: bool) -> bool:
    return deterministic or torch.are_deterministic_algorithms_enabled()


def _empty(like: Tensor) -> Tensor:
    return like.new_empty(like.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, shapes, *queries, deterministic = inputs
    ctx.save_for_backward(value, *queries)
    ctx.shapes, ctx.deterministic = shapes, deterministic


def _attention_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    value, *queries = ctx.saved_tensors
    grad_value, *rest = _attention_backward(grad, value, ctx.shapes, *queries, ctx.deterministic)
    return grad_value, None, *rest, None


def _levels_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    value, *queries = ctx.saved_tensors
    grad_value, *rest = _levels_backward(grad, value, ctx.shapes, *queries, ctx.deterministic)
    return grad_value, None, *rest, None


_attention.register_autograd(_attention_gradient, setup_context=_keep)
_levels.register_autograd(_levels_gradient, setup_context=_keep)
