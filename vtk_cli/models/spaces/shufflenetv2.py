"""The space of ShuffleNetV2 blocks of single-path one-shot search (arXiv 1904.00420): 20 layers, 4 choices each.

Choices 0, 1 and 2 are blocks with depthwise kernels of 3, 5 and 7; 3 is the one with three depthwise convolutions, as
in Xception. The search over channels of that paper is not part of its public code, nor of this space.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from vtk_cli.models.spaces.chain import ChainSpace, Layer
from vtk_cli.models.spaces.cost import Cost, convolution, depthwise, halved, linear, normalisation
from vtk_cli.models.spaces.space import STAND_ALONE, SUPERNET, Form, Released, Shape

if TYPE_CHECKING:
    from vtk_cli.models.spaces.shufflenetv2_network import ShuffleParts

XCEPTION = 3
KERNELS = MappingProxyType({0: 3, 1: 5, 2: 7, XCEPTION: 3})
"""Side of the depthwise kernels by choice."""
STEM, LAST = 16, 1024
"""Channels of the first and of the last convolution."""

_STAGES = ((4, 64), (4, 160), (8, 320), (4, 640))
"""Layers and channels of each stage; the first layer of each halves the map."""
_RELEASED = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)


class ShuffleSpace(ChainSpace):
    """ShuffleNetV2 blocks, 4^20 networks for ImageNet."""

    def __init__(self) -> None:
        super().__init__(
            "shufflenetv2",
            "20 ShuffleNetV2 blocks of 4 kinds, for ImageNet (20 genes)",
            ((0, 1, 2, XCEPTION),) * sum(count for count, _ in _STAGES),
            {SUPERNET: Form(resolution=224), STAND_ALONE: Form(resolution=224)},
            released=MappingProxyType(
                {"spos-shufflenetv2": Released(_RELEASED, STAND_ALONE, None, "SPOS, arXiv 1904.00420", 74.4)}
            ),
        )

    def layers(self, shape: Shape) -> tuple[Layer, ...]:  # noqa: ARG002 - the widths are fixed
        """20 layers in four stages."""
        inputs, layers = STEM, []
        for count, outputs in _STAGES:
            for number in range(count):
                layers.append(Layer(inputs, outputs, 1 if number else 2))
                inputs = outputs
        return tuple(layers)

    def stem_cost(self, shape: Shape) -> tuple[Cost, int]:
        """Convolution 3x3 of stride 2."""
        side = halved(shape.resolution)
        return convolution(3, STEM, 3, side) + _norm(STEM, shape), side

    def block_cost(self, layer: Layer, choice: int, side: int, shape: Shape) -> Cost:
        """Of the branch, and in a layer of stride 2 of the projection beside it."""
        out = side if layer.stride == 1 else halved(side)
        inputs, mid, outputs = branch_channels(layer)
        kernel, norm = KERNELS[choice], _norm(mid, shape)
        if choice == XCEPTION:
            cost = depthwise(inputs, 3, out) + _norm(inputs, shape) + convolution(inputs, mid, 1, out) + norm
            cost += depthwise(mid, 3, out) + norm + convolution(mid, mid, 1, out) + norm + depthwise(mid, 3, out)
        else:
            cost = convolution(inputs, mid, 1, side) + norm + depthwise(mid, kernel, out)
        cost += norm + convolution(mid, outputs, 1, out) + _norm(outputs, shape)
        if layer.stride == 2:
            cost += depthwise(inputs, kernel, out) + convolution(inputs, inputs, 1, out)
            cost += _norm(inputs, shape) + _norm(inputs, shape)
        return cost

    def head_cost(self, side: int, shape: Shape) -> Cost:
        """Convolution 1x1, classifier without bias."""
        last = convolution(_STAGES[-1][1], LAST, 1, side) + _norm(LAST, shape)
        return last + linear(LAST, shape.classes, bias=False)

    def parts(self, shape: Shape) -> ShuffleParts:
        """In the supernet the normalisations have no parameters."""
        from vtk_cli.models.spaces.shufflenetv2_network import ShuffleParts

        return ShuffleParts(shape.classes, affine=shape.form != SUPERNET)


def branch_channels(layer: Layer) -> tuple[int, int, int]:
    """What the searched branch takes in, holds in the middle and puts out: half of the channels at stride 1."""
    inputs = layer.inputs // 2 if layer.stride == 1 else layer.inputs
    return inputs, layer.outputs // 2, layer.outputs - inputs


def _norm(channels: int, shape: Shape) -> Cost:
    return normalisation(channels, affine=shape.form != SUPERNET)
