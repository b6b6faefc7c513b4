"""Attention in windows with a learned bias against torch's, and its gradients against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.detect.window_attention import attend_in_windows

B, N, M, CELLS, WIDTH = 2, 3, 2, 5, 4


def inputs(windows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(3, B, N, M, CELLS, WIDTH, generator=generator, dtype=dtype)
    bias = torch.randn(windows, M, CELLS, CELLS, generator=generator, dtype=dtype)
    return qkv.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("windows", [1, N])
def test_it_is_torchs_attention_window_by_window(windows: int) -> None:
    qkv, bias = inputs(windows, torch.float32)
    ours = attend_in_windows(qkv, bias)
    theirs = F.scaled_dot_product_attention(*qkv, attn_mask=bias[None])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    grads = [torch.autograd.grad((out * weights).sum(), (qkv, bias)) for out in (ours, theirs)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("windows", [1, N])
def test_gradients_are_finite_differences(windows: int) -> None:
    assert torch.autograd.gradcheck(attend_in_windows, inputs(windows, torch.float64))


def test_cells_that_a_mask_hides_are_not_seen() -> None:
    qkv, bias = inputs(N, torch.float64)
    mask = torch.zeros(N, 1, CELLS, CELLS, dtype=torch.float64)
    mask[1, :, :, -1] = -100
    seen = attend_in_windows(qkv, bias + mask)
    (grad,) = torch.autograd.grad(seen[:, 1].abs().sum(), qkv)
    assert float(grad[1:, :, 1, :, -1].abs().amax()) < 1e-30
    assert float(grad[1:, :, 1, :, :-1].abs().amin()) > 1e-6
