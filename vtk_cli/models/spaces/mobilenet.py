"""The space of MobileNet blocks like ProxylessNAS' (arXiv 1812.00332) as RLNAS searches it (arXiv 2101.11834).

21 layers of inverted residual blocks: choices 0 to 5 are (kernel, expansion) = (3, 3), (3, 6), (5, 3), (5, 6), (7, 3),
(7, 6); -1 leaves a layer out, except the first of a stage, which changes the map.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from vtk_cli.models.spaces.chain import ChainSpace, Layer
from vtk_cli.models.spaces.cost import Cost, convolution, depthwise, halved, linear, normalisation
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import STAND_ALONE, SUPERNET, Form, Shape

if TYPE_CHECKING:
    from vtk_cli.models.spaces.mobilenet_network import MobileParts

IDENTITY = -1
BLOCKS = MappingProxyType({0: (3, 3), 1: (3, 6), 2: (5, 3), 3: (5, 6), 4: (7, 3), 5: (7, 6)})
"""(kernel, expansion) by choice."""
STEM, FIRST, LAST = 40, 24, 1728
"""Channels of the first convolution, of the fixed block after it and of the last convolution."""

_STAGES = ((4, 32, 2), (4, 56, 2), (4, 112, 2), (4, 128, 1), (4, 256, 2), (1, 432, 1))
"""Layers, channels and first stride of each stage."""


class MobileSpace(ChainSpace):
    """Inverted residual blocks, 6^6 7^15 networks for ImageNet."""

    def __init__(self) -> None:
        blocks = tuple(BLOCKS)
        choices: tuple[Genes, ...] = tuple(
            (IDENTITY, *blocks) if number else blocks for count, _, _ in _STAGES for number in range(count)
        )
        super().__init__(
            "mobilenet",
            "21 MobileNet blocks of 6 kinds or left out, for ImageNet (21 genes)",
            choices,
            {SUPERNET: Form(resolution=224), STAND_ALONE: Form(resolution=224)},
        )

    def layers(self, shape: Shape) -> tuple[Layer, ...]:  # noqa: ARG002 - the widths are fixed
        """21 layers in six stages."""
        inputs, layers = FIRST, []
        for count, outputs, stride in _STAGES:
            for number in range(count):
                layers.append(Layer(inputs, outputs, 1 if number else stride))
                inputs = outputs
        return tuple(layers)

    def stem_cost(self, shape: Shape) -> tuple[Cost, int]:
        """Convolution 3x3 of stride 2, a block of kernel 3 and expansion 1."""
        side = halved(shape.resolution)
        cost = convolution(3, STEM, 3, side) + normalisation(STEM)
        return cost + _inverted_residual(Layer(STEM, FIRST, 1), 3, 1, side), side

    def block_cost(self, layer: Layer, choice: int, side: int, shape: Shape) -> Cost:  # noqa: ARG002
        """Of an inverted residual block; nothing where it is left out."""
        return Cost() if choice == IDENTITY else _inverted_residual(layer, *BLOCKS[choice], side)

    def head_cost(self, side: int, shape: Shape) -> Cost:
        """Convolution 1x1, classifier."""
        last = convolution(_STAGES[-1][1], LAST, 1, side) + normalisation(LAST)
        return last + linear(LAST, shape.classes)

    def parts(self, shape: Shape) -> MobileParts:
        """The same for the supernet and for one network."""
        from vtk_cli.models.spaces.mobilenet_network import MobileParts

        return MobileParts(shape.classes)


def _inverted_residual(layer: Layer, kernel: int, expansion: int, side: int) -> Cost:
    out, wide = (side if layer.stride == 1 else halved(side)), layer.inputs * expansion
    expand = convolution(layer.inputs, wide, 1, side) + normalisation(wide) if expansion > 1 else Cost()
    across = depthwise(wide, kernel, out) + normalisation(wide)
    return expand + across + convolution(wide, layer.outputs, 1, out) + normalisation(layer.outputs)
