"""The operations of DARTS cells (arXiv 1806.09055), under the names that the released checkpoints give their weights.

Convolutions have no bias and PyTorch's own initialisation, as in the released code. Odd maps are halved rounding up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.models.spaces.darts import CellPlan
from vtk_cli.models.spaces.genotypes import AVG_POOL, KERNELS, MAX_POOL, SEP_3, SEP_5, SKIP


class ReluConvNorm(nn.Module):
    """ReLU, convolution, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, affine: bool = True) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.op(x)
        return out


class FactorizedReduce(nn.Module):
    """Halve a map: a 1x1 convolution of its even cells beside one of its odd cells, each to half the channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / 2), ceil(W / 2)); an odd side is padded by one."""
        odd = x.shape[2] % 2, x.shape[3] % 2
        x = F.relu(F.pad(x, (0, odd[1], 0, odd[0])) if any(odd) else x)
        out: Tensor = self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))
        return out


class SeparableConv(nn.Module):
    """Twice: ReLU, depthwise convolution, pointwise convolution, batch normalisation; the first has the stride."""

    def __init__(self, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(*_depthwise(width, kernel, stride, 1), *_depthwise(width, kernel, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, width, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.op(x)
        return out


class DilatedConv(nn.Module):
    """ReLU, depthwise convolution of dilation 2, pointwise convolution, batch normalisation."""

    def __init__(self, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(*_depthwise(width, kernel, stride, 2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, width, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.op(x)
        return out


def operation_module(operation: int, width: int, stride: int) -> nn.Module:
    """The module of an operation other than `none`, on maps of `width` channels.

    Pooling is as in networks that stand alone, without batch normalisation.
    """
    if operation == MAX_POOL:
        return nn.MaxPool2d(3, stride, padding=1)
    if operation == AVG_POOL:
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if operation == SKIP:
        return nn.Identity() if stride == 1 else FactorizedReduce(width, width)
    kind = SeparableConv if operation in (SEP_3, SEP_5) else DilatedConv
    return kind(width, KERNELS[operation], stride)


def preprocessing(plan: CellPlan) -> tuple[nn.Module, nn.Module]:
    """What brings the two inputs of a cell to its width and to one size."""
    older, newer = plan.inputs
    return (
        FactorizedReduce(older, plan.width) if plan.after_reduction else ReluConvNorm(older, plan.width),
        ReluConvNorm(newer, plan.width),
    )


def small_image_stem(channels: int) -> nn.Sequential:
    """Convolution 3x3 and batch normalisation, no ReLU: what CIFAR networks begin with."""
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def _depthwise(width: int, kernel: int, stride: int, dilation: int) -> tuple[nn.Module, ...]:
    padding = dilation * (kernel // 2)
    return (
        nn.ReLU(),
        nn.Conv2d(width, width, kernel, stride, padding, dilation, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
    )
