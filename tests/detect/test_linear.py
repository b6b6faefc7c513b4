"""Linear layers in training against torch's, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vtk_cli.detect import linear
from vtk_cli.detect.linear import Linear, linear_in_training


def case(rows: tuple[int, ...], width: int, out: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sides = (*rows, width), (out, width), (out,)
    tokens, weight, bias = (torch.randn(side, generator=generator, dtype=dtype).requires_grad_() for side in sides)
    return tokens, weight, bias


@pytest.mark.parametrize(
    ("rows", "width", "out"), [((3, 700), 16, 128), ((2100,), 128, 24), ((2, 5, 300), 64, 64), ((4,), 3, 2)]
)
@pytest.mark.parametrize("has_bias", [True, False])
def test_it_is_torchs_linear_layer_but_for_rounding(
    rows: tuple[int, ...], width: int, out: int, has_bias: bool
) -> None:
    inputs = case(rows, width, out, torch.float32)[: 3 if has_bias else 2]
    weights = torch.randn(*rows, out, generator=torch.Generator().manual_seed(1))
    results = []
    for function in (linear_in_training, nn.functional.linear):
        made = function(*inputs, None) if len(inputs) == 2 and function is linear_in_training else function(*inputs)
        results.append((made, *torch.autograd.grad((made * weights).sum(), inputs)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.detach().abs().amax()))


def test_tokens_and_gradients_of_any_layout() -> None:
    _, weight, bias = case((1,), 64, 80, torch.float32)
    base = torch.randn(2, 64, 600, generator=torch.Generator().manual_seed(2)).requires_grad_()
    strided = torch.randn(80, 2, 600, generator=torch.Generator().manual_seed(4)).permute(1, 2, 0)
    grads = [
        torch.autograd.grad(function(base.mT, weight, bias), (base, weight, bias), strided)
        for function in (linear_in_training, nn.functional.linear)
    ]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.detach().abs().amax()))


def test_only_the_gradients_that_are_asked_for_are_made() -> None:
    tokens, weight, bias = case((2100,), 64, 64, torch.float32)
    weight.requires_grad_(requires_grad=False)
    linear_in_training(tokens, weight, bias).sum().backward()
    assert weight.grad is None
    assert tokens.grad is not None
    torch.testing.assert_close(bias.grad, torch.full((64,), 2100.0))


def test_double_precision_stays_torchs() -> None:
    assert torch.autograd.gradcheck(linear_in_training, case((5,), 3, 4, torch.float64))


def test_in_evaluation_it_is_torchs_bit_for_bit() -> None:
    layer = Linear(64, 64).eval()
    tokens = torch.randn(2100, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(tokens), nn.functional.linear(tokens, layer.weight, layer.bias))


def test_without_onednn_it_is_torchs_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_has_onednn", lambda: False)
    inputs = case((2100,), 64, 64, torch.float32)
    assert torch.equal(linear_in_training(*inputs), nn.functional.linear(*inputs))
