"""Layers that run with a part of their weights, and the gradient of the choice (edge-popup, arXiv 1911.13299).

A layer's weights theta are frozen; every weight has a score s. The largest |s| are kept (mask m = 1), the layer runs
with w = theta * m, and the gradient passes straight through the choice: dL/d|s| := dL/dm = dL/dw * theta for all
weights, the pruned ones included.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, amounts: Tensor, weight: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(weight)
        # Twice as fast as `masked_fill`; adding +0 makes +0 of the -0 that a negative weight leaves.
        return (weight * mask.to(weight.dtype)).add_(0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return grads[0] * weight, None, None


def straight_through(amounts: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """weight * mask, whose gradient by `amounts` is that by the mask: dL/dw * weight, everywhere.

    The weight gets no gradient. Pruned weights are +0, also where the weight is negative.

    Args:
        amounts: what the mask was made from, of the weight's shape.
        weight: frozen.
        mask: bool, of the weight's shape.
    """
    kept: Tensor = _StraightThrough.apply(amounts, weight, mask)
    return kept


class Masked(nn.Module):
    """What a masked layer has besides being a layer.

    Attributes:
        weight: theta; without scores it may be trained, and a pruned weight then gets no gradient.
        scores: one a weight, trained; None where the mask is fixed.
        alive: bool, which scores still take part (Gem-Miner); None where all do and the amount is |score|.
        mask: bool, which weights are kept now.
    """

    weight: Tensor
    scores: nn.Parameter | None
    alive: Tensor | None
    mask: Tensor

    def adopt(self, layer: nn.Module) -> None:
        """Take over the parameters of a plain layer; everything is kept, nothing is scored yet."""
        weight = cast("nn.Parameter", layer.weight)
        self.register_parameter("weight", weight)
        self.register_parameter("bias", cast("nn.Parameter | None", layer.bias))
        self.register_parameter("scores", None)
        self.register_buffer("alive", None)
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    @property
    def amounts(self) -> Tensor:
        """What decides which weights are kept: |s|, or s where alive and 0 elsewhere."""
        if self.scores is None:
            raise ValueError("a layer with a fixed mask has no scores")
        return self.scores.abs() if self.alive is None else self.scores * self.alive

    def effective_weight(self) -> Tensor:
        """The weight that the layer runs with: theta where the mask is true, else 0."""
        if self.scores is None:
            return self.weight.masked_fill(~self.mask, 0.0)
        return straight_through(self.amounts, self.weight, self.mask)


class MaskedConv2d(Masked, nn.Conv2d):
    """A convolution with a part of its weights; made from a plain one, whose parameters it takes over.

    Raises:
        ValueError: it pads with anything but a given number of zeros.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ValueError("a masked convolution pads with a given number of zeros")
        super().__init__(**_convolution(layer))
        self.adopt(layer)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name of the plain layer's argument)
        """(B, C, H, W) -> (B, C', H', W')."""
        output: Tensor = self._conv_forward(input, self.effective_weight(), self.bias)
        return output


class MaskedConvTranspose2d(Masked, nn.ConvTranspose2d):
    """A transposed convolution with a part of its weights; made from a plain one, whose parameters it takes over."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__(**_convolution(layer))
        self.adopt(layer)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        """(B, C, H, W) -> (B, C', H', W'); the output's size is that of `output_padding`, not `output_size`."""
        if output_size is not None:
            raise ValueError("a masked layer has the output size of its output padding")
        weight, pair = self.effective_weight(), (self.stride, self.padding, self.output_padding)
        stride, padding, output_padding = (cast("tuple[int, int]", value) for value in pair)
        dilation = cast("tuple[int, int]", self.dilation)
        output: Tensor = F.conv_transpose2d(
            input, weight, self.bias, stride, padding, output_padding, self.groups, dilation
        )
        return output


class MaskedLinear(Masked, nn.Linear):
    """A linear layer with a part of its weights; made from a plain one, whose parameters it takes over."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.adopt(layer)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(..., C) -> (..., C')."""
        return F.linear(input, self.effective_weight(), self.bias)


def masked_layer(layer: nn.Module) -> Masked:
    """The masked twin of a plain layer, with the same parameters and everything kept."""
    if isinstance(layer, nn.Conv2d):
        return MaskedConv2d(layer)
    if isinstance(layer, nn.ConvTranspose2d):
        return MaskedConvTranspose2d(layer)
    return MaskedLinear(cast("nn.Linear", layer))


@torch.no_grad()
def plain_layer(layer: Masked) -> nn.Module:
    """A plain layer whose weight is the masked one's effective weight, frozen."""
    plain: nn.Module
    if isinstance(layer, MaskedConv2d):
        plain = nn.Conv2d(**_convolution(layer))
    elif isinstance(layer, MaskedConvTranspose2d):
        plain = nn.ConvTranspose2d(**_convolution(layer))
    else:
        linear = cast("MaskedLinear", layer)
        plain = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
    plain.register_parameter("weight", nn.Parameter(layer.effective_weight().clone(), requires_grad=False))
    plain.register_parameter("bias", cast("nn.Parameter | None", layer.bias))
    return plain.train(layer.training)


def _convolution(layer: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    """What a convolution of the same form is made from, without memory for its weights."""
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"]
    if isinstance(layer, nn.ConvTranspose2d):
        names.append("output_padding")
    return {name: getattr(layer, name) for name in names} | {"bias": layer.bias is not None, "device": "meta"}
