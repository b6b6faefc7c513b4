"""Sums in 64-bit fixed point: integer addition is associative, so atomics in any order give the same bits.

The unit is a power of two, 2**-61 of a bound on the largest sum, so no sum overflows, and 61 bits are more than the 24
of the float32 that the sum is returned in. A bound that is not finite makes the whole result NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bound_of_samples(grad: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """At least the largest sum in the gradient of `value` in `sample_levels`: every sample on one cell. () float64."""
    return _largest(grad) * _largest(weights) * (locations.shape[1] * locations.shape[3] * locations.shape[4])


def bound_of_attention(grad: Tensor) -> Tensor:
    """The same in `deformable_attention`, where the weights of each of the Q queries of `grad` (B, Q, M*D) sum to 1."""
    return _largest(grad) * grad.shape[1]


def scale(bound: Tensor) -> Tensor:
    """What a number is multiplied with before it is rounded to int64. () float64."""
    return torch.ldexp(torch.ones_like(bound), 61 - torch.frexp(bound).exponent)


def to_float(total: Tensor, bound: Tensor, dtype: torch.dtype) -> Tensor:
    """The int64 sums as numbers."""
    return torch.where(bound.isfinite(), total.double() / scale(bound), torch.nan).to(dtype)


def _largest(tensor: Tensor) -> Tensor:
    return tensor.abs().amax().double() if tensor.numel() else tensor.new_zeros((), dtype=torch.float64)
