"""What the networks of the tiny spaces are put together from; initialised as PyTorch does by default."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vtk_cli.models.spaces.chain import Layer
from vtk_cli.models.spaces.chain_network import ChainParts
from vtk_cli.models.spaces.tiny import Operation


class TinyParts(ChainParts):
    """Stem, operations and classifier of a tiny space.

    Args:
        operations: the choices of each layer.
        layers: of the space, for the widths of stem and classifier.
        classes: of the images.
        channels: of the images.
        shrink: how many times smaller the images are made, by averaging, before the stem.
    """

    def __init__(
        self, operations: Sequence[Operation], layers: Sequence[Layer], classes: int, channels: int, shrink: int
    ) -> None:
        self._operations, self._layers, self._classes = operations, layers, classes
        self._channels, self._shrink = channels, shrink
        self.stem_stride = 2 * shrink

    def stem(self) -> nn.Module:
        """Averaging, convolution 3x3 of stride 2, batch normalisation, ReLU."""
        width = self._layers[0].inputs
        return nn.Sequential(
            *([nn.AvgPool2d(self._shrink, ceil_mode=True)] if self._shrink > 1 else []),
            nn.Conv2d(self._channels, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    def block(self, layer: Layer, choice: int) -> nn.Module:
        """The modules of an operation."""
        operation, stride, inputs = self._operations[choice], layer.stride, layer.inputs
        before: list[nn.Module] = []
        if operation.pooled:
            before = [nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)]
        elif operation.separable:
            padding = operation.kernel // 2
            across = nn.Conv2d(inputs, inputs, operation.kernel, stride, padding, groups=inputs, bias=False)
            before = [across, nn.BatchNorm2d(inputs)]
        kernel, stride = (1, 1) if before and operation.separable else (operation.kernel, 1 if before else stride)
        last = nn.Conv2d(inputs, layer.outputs, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(*before, last, nn.BatchNorm2d(layer.outputs), nn.ReLU(inplace=True))

    def head(self) -> nn.Module:
        """Average pooling and a linear classifier."""
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self._layers[-1].outputs, self._classes))

    def initialise(self, network: nn.Module) -> None:
        """Leave PyTorch's own initialisation."""
