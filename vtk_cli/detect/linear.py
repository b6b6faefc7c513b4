"""Linear layers whose three products are oneDNN's where they train on the CPU in float32.

Torch gives them to MKL, which has AVX-512 for one maker's processors only; oneDNN asks the processor itself, and takes
half the time on the others. Same weights, same names: a `Linear` is an `nn.Linear`, and in evaluation nothing else.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_LEAST = 1 << 22
"""Multiplications of a product below which finding the faster library takes longer than the slower one."""


class Linear(nn.Linear):
    """`nn.Linear`, faster in training."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear_in_training(tokens, self.weight, self.bias) if self.training else super().forward(tokens)


def linear_in_training(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, differentiable once; the results differ by rounding.

    Args:
        tokens: (..., in).
        weight: (out, in).
        bias: (out,), or None.
    """
    floats = tokens.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if tokens.device.type == "cpu" and floats and tokens.numel() * len(weight) > _LEAST and _has_onednn():
        return cast("Tensor", _Linear.apply(tokens, weight, bias))
    return F.linear(tokens, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        return _product(tokens.flatten(0, -2), weight, bias).view(*tokens.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        tokens, weight = ctx.saved_tensors
        of_tokens, of_weight, of_bias = ctx.needs_input_grad
        rows, given = grad.flatten(0, -2), tokens.flatten(0, -2)
        return (
            _product(rows, weight.t()).view(tokens.shape) if of_tokens else None,
            _few_rows(rows.t(), given.t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _few_rows(left: Tensor, right: Tensor) -> Tensor:
    """left (n, m) @ right^T (m, k); of its two forms, the one whose result has fewer rows is the faster."""
    return _product(left, right) if len(left) <= len(right) else _product(right, left).t()


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (n, in) @ weight^T (in, out) + bias."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return out


def _has_onednn() -> bool:
    """Whether this torch has oneDNN's linear layer, which it keeps for compiled networks."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
