"""The four functions of a backend that has one kernel forward and one backward for both forms of the operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vtk_kernels.deformable import fixed_point

Shapes = list[tuple[int, int]]


def operators(forward: Callable[..., Tensor], backward: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """`sample_levels`, its backward, `deformable_attention` and its backward, as in `reference.py`.

    Args:
        forward: `forward(value, shapes, reference, places, scores)`. With a reference, places are offsets and scores
            are logits; with None, locations and weights.
        backward: `backward(grad, value, shapes, reference, places, scores, bound)`: the gradients of value, of the
            reference by head, of places and of scores. With a bound on the largest sum they do not depend on the order.
    """

    def sample_levels(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
        return forward(value, shapes, None, locations, weights)

    def sample_levels_backward(
        grad: Tensor, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, deterministic: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        bound = fixed_point.bound_of_samples(grad, locations, weights) if deterministic else None
        grad_value, _, grad_locations, grad_weights = backward(grad, value, shapes, None, locations, weights, bound)
        return grad_value, grad_locations, grad_weights

    def deformable_attention(
        value: Tensor, shapes: Shapes, reference: Tensor, offsets: Tensor, logits: Tensor
    ) -> Tensor:
        return forward(value, shapes, reference, offsets, logits)

    def deformable_attention_backward(
        grad: Tensor,
        value: Tensor,
        shapes: Shapes,
        reference: Tensor,
        offsets: Tensor,
        logits: Tensor,
        deterministic: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        bound = fixed_point.bound_of_attention(grad) if deterministic else None
        grad_value, by_head, *rest = backward(grad, value, shapes, reference, offsets, logits, bound)
        return grad_value, by_head.sum(2), *rest

    return sample_levels, sample_levels_backward, deformable_attention, deformable_attention_backward
