"""Spaces small enough to try every architecture: three layers, four choices each, 64 networks.

`chain-a` and `chain-b` take images of one channel and 16 x 16 pixels. `digits-mini` is `chain-a` for the embedded
digits, of three channels and 32 x 32 pixels, which it averages down to 16 x 16 first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtk_cli.models.spaces.chain import ChainSpace, Layer
from vtk_cli.models.spaces.cost import Cost, convolution, depthwise, halved, linear, normalisation
from vtk_cli.models.spaces.space import STAND_ALONE, SUPERNET, Form, Shape

if TYPE_CHECKING:
    from vtk_cli.models.spaces.tiny_network import TinyParts

LAYERS = 3


@dataclass(frozen=True)
class Operation:
    """A choice of a layer; each convolution is followed by batch normalisation, the last one of a choice by ReLU too.

    Args:
        name: what it is called in drawings.
        kernel: side of its kernel: of a depthwise convolution before a pointwise one if `separable`.
        separable: see `kernel`.
        pooled: whether average pooling 3x3 comes first and has the layer's stride.
    """

    name: str
    kernel: int
    separable: bool = False
    pooled: bool = False


CONV_1 = Operation("conv_1x1", 1)
CONV_3 = Operation("conv_3x3", 3)
POOL = Operation("avg_pool_3x3+conv_1x1", 1, pooled=True)
SEP_3 = Operation("sep_conv_3x3", 3, separable=True)
SEP_5 = Operation("sep_conv_5x5", 5, separable=True)

A = (CONV_1, POOL, SEP_3, CONV_3)
"""Choices of which some are much worse than others."""
B = (POOL, SEP_3, SEP_5, CONV_3)
"""Choices that are nearly equally good."""


class TinySpace(ChainSpace):
    """64 networks: a stem of stride 2, layers of C, 2C (stride 2) and 2C channels, a linear classifier.

    Args:
        name: what users type.
        summary: what it is, in a line.
        operations: the choices of each layer.
        channels: of the images.
        resolution: side of the images.
        shrink: how many times smaller the images are made, by averaging, before the stem.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        operations: tuple[Operation, ...],
        *,
        channels: int = 1,
        resolution: int = 16,
        shrink: int = 1,
    ) -> None:
        self.operations, self.shrink = operations, shrink
        form = Form(resolution=resolution, width=12)
        choices = (tuple(range(len(operations))),) * LAYERS
        super().__init__(name, summary, choices, {SUPERNET: form, STAND_ALONE: form}, input_channels=channels)

    def layers(self, shape: Shape) -> tuple[Layer, ...]:
        """Three layers."""
        width = shape.width
        return (Layer(width, width, 1), Layer(width, 2 * width, 2), Layer(2 * width, 2 * width, 1))

    def stem_cost(self, shape: Shape) -> tuple[Cost, int]:
        """Convolution 3x3 of stride 2."""
        side, width = halved(-(-shape.resolution // self.shrink)), shape.width
        return convolution(self.input_channels, width, 3, side) + normalisation(width), side

    def block_cost(self, layer: Layer, choice: int, side: int, shape: Shape) -> Cost:  # noqa: ARG002
        """Of the convolutions of an operation."""
        operation, out = self.operations[choice], side if layer.stride == 1 else halved(side)
        if not operation.separable:
            return convolution(layer.inputs, layer.outputs, operation.kernel, out) + normalisation(layer.outputs)
        across = depthwise(layer.inputs, operation.kernel, out) + normalisation(layer.inputs)
        return across + convolution(layer.inputs, layer.outputs, 1, out) + normalisation(layer.outputs)

    def head_cost(self, side: int, shape: Shape) -> Cost:  # noqa: ARG002 - pooling is free
        """A linear classifier."""
        return linear(self.layers(shape)[-1].outputs, shape.classes)

    def parts(self, shape: Shape) -> TinyParts:
        """The same for the supernet and for one network."""
        from vtk_cli.models.spaces.tiny_network import TinyParts

        return TinyParts(self.operations, self.layers(shape), shape.classes, self.input_channels, self.shrink)
