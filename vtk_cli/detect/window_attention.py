"""Attention within many small windows on the CPU, with a bias that is learned.

Torch's fused attention on the CPU gives no gradient to a bias, so its plain form is taken there. This one does less:
one copy cuts all windows, no row is searched for being hidden entirely (a bias is finite), and results stand with the
cells last, since matrices of 16 columns are multiplied twice as fast as those of 8.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def attend_in_windows(qkv: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias) v of each window and head (arXiv 2103.14030, eq. 4); differentiable once.

    Args:
        qkv: (3, B, n, M, cells, D) float32 or float64, queries, keys and values of n windows.
        bias: (n, M, cells, cells), or (1, M, cells, cells) for all windows; finite.

    Returns:
        (B, n, M, cells, D), the cells contiguous in memory.
    """
    return cast("Tensor", _WindowAttention.apply(qkv, bias))


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor) -> Tensor:
        q, k, v = _matrices(qkv)
        scores = torch.bmm(q, k.mT).mul_(q.shape[-1] ** -0.5)
        _by_window(scores, qkv).add_(bias)
        weights = scores.softmax(-1)
        ctx.save_for_backward(qkv, weights)
        ctx.shared = bias.shape[0] == 1
        return torch.bmm(v.mT, weights.mT).view(*qkv.shape[1:4], *v.mT.shape[1:]).mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        qkv, weights = ctx.saved_tensors
        q, k, v = _matrices(qkv)
        out = grad.mT.reshape(v.mT.shape)  # (windows and heads, D, cells), like all gradients below
        grads = out.new_empty(3, *out.shape)
        torch.bmm(out, weights, out=grads[2])
        scores = torch._softmax_backward_data(torch.bmm(out.mT, v.mT), weights, -1, weights.dtype)
        by_window = _by_window(scores, qkv)
        bias = by_window.sum((0, 1))[None] if ctx.shared else by_window.sum(0)
        scores.mul_(q.shape[-1] ** -0.5)
        torch.bmm(k.mT, scores.mT, out=grads[0])
        torch.bmm(q.mT, scores, out=grads[1])
        return grads.view(*qkv.shape[:4], *out.shape[1:]).mT, bias


def _matrices(qkv: Tensor) -> Tensor:
    """(3, windows and heads, cells, D)."""
    return qkv.flatten(1, 3)


def _by_window(scores: Tensor, qkv: Tensor) -> Tensor:
    """(B, n, M, cells, cells) of (windows and heads, cells, cells)."""
    return scores.view(*qkv.shape[1:4], *scores.shape[1:])
