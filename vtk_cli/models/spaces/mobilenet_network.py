"""MobileNet blocks like ProxylessNAS' (arXiv 1812.00332) and their initialisation.

Convolutions start as N(0, sqrt(2 / (k k outputs))); the classifier as MobileNetV2's, N(0, 0.01) without bias.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from vtk_cli.models.spaces.chain import Layer
from vtk_cli.models.spaces.chain_network import ChainParts
from vtk_cli.models.spaces.mobilenet import BLOCKS, FIRST, IDENTITY, LAST, STEM

_LAST_MAP = 432


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution, pointwise projection; added to its input where both have one shape.

    An expansion of 1 is left out.

    Args:
        layer: where it stands.
        kernel: side of the depthwise kernel.
        expansion: channels in the middle over those of the input.
    """

    def __init__(self, layer: Layer, kernel: int, expansion: int) -> None:
        super().__init__()
        wide = layer.inputs * expansion
        expand = (nn.Conv2d(layer.inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True))
        self.conv = nn.Sequential(
            *(expand if expansion > 1 else ()),
            nn.Conv2d(wide, wide, kernel, layer.stride, kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, layer.outputs, 1, bias=False),
            nn.BatchNorm2d(layer.outputs),
        )
        self._residual = layer.stride == 1 and layer.inputs == layer.outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.conv(x)
        return x + out if self._residual else out


class MobileParts(ChainParts):
    """What MobileNet networks consist of.

    Args:
        classes: of the images.
    """

    stem_stride = 2

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def stem(self) -> nn.Module:
        """Convolution 3x3 of stride 2, batch normalisation, ReLU6, a block of kernel 3 and expansion 1."""
        return nn.Sequential(
            nn.Conv2d(3, STEM, 3, 2, 1, bias=False),
            nn.BatchNorm2d(STEM),
            nn.ReLU6(inplace=True),
            InvertedResidual(Layer(STEM, FIRST, 1), 3, 1),
        )

    def block(self, layer: Layer, choice: int) -> nn.Module:
        """An inverted residual block, or nothing."""
        return nn.Identity() if choice == IDENTITY else InvertedResidual(layer, *BLOCKS[choice])

    def head(self) -> nn.Module:
        """Convolution 1x1, batch normalisation, ReLU6, average pooling, classifier."""
        return nn.Sequential(
            nn.Conv2d(_LAST_MAP, LAST, 1, bias=False),
            nn.BatchNorm2d(LAST),
            nn.ReLU6(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(LAST, self._classes),
        )

    def initialise(self, network: nn.Module) -> None:
        """See the top of the file."""
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                kernel = module.kernel_size[0] * module.kernel_size[1]
                nn.init.normal_(module.weight, 0, math.sqrt(2.0 / (kernel * module.out_channels)))
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)
