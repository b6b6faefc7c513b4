"""Deformable attention on the CPU: hands the tensors to `cpu.cpp` and receives the results."""

from __future__ import annotations

from torch import Tensor

from vtk_kernels import dispatch

Shapes = list[tuple[int, int]]


def sample_levels(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """As in `reference.py`."""
    out = _out(value, locations)
    dispatch.cpu_module("deformable").sample_forward(value, shapes, locations, weights, out, dispatch.threads())
    return out


def sample_levels_backward(
    grad: Tensor, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, deterministic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As in `reference.py`. Always deterministic."""
    grads = value.new_empty(value.shape), locations.new_empty(locations.shape), weights.new_empty(weights.shape)
    module = dispatch.cpu_module("deformable")
    module.sample_backward(grad, value, shapes, locations, weights, *grads, dispatch.threads())
    return grads


def deformable_attention(value: Tensor, shapes: Shapes, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    """As in `reference.py`."""
    out = _out(value, offsets)
    module = dispatch.cpu_module("deformable")
    module.attention_forward(value, shapes, reference, offsets, logits, out, dispatch.threads())
    return out


def deformable_attention_backward(
    grad: Tensor,
    value: Tensor,
    shapes: Shapes,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As in `reference.py`. Always deterministic."""
    B, Q, M = offsets.shape[:3]
    by_head = offsets.new_empty(B, Q, M, *reference.shape[2:])
    grads = value.new_empty(value.shape), by_head, offsets.new_empty(offsets.shape), logits.new_empty(logits.shape)
    module = dispatch.cpu_module("deformable")
    module.attention_backward(grad, value, shapes, reference, offsets, logits, *grads, dispatch.threads())
    return grads[0], by_head.sum(2), grads[2], grads[3]


def _out(value: Tensor, queries: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], queries.shape[1], value.shape[2] * value.shape[3])
