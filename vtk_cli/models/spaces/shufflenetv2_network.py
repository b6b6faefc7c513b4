"""ShuffleNetV2 blocks as single-path one-shot search has them, and their initialisation (arXiv 1904.00420)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vtk_cli.models.spaces.chain import Layer
from vtk_cli.models.spaces.chain_network import ChainParts
from vtk_cli.models.spaces.shufflenetv2 import KERNELS, LAST, STEM, XCEPTION, branch_channels

_LAST_MAP = 640
_DROPOUT = 0.1


class ShuffleBlock(nn.Module):
    """A searched branch beside what is passed through (stride 1) or projected (stride 2).

    Args:
        layer: where it stands.
        choice: 0, 1, 2 for kernels of 3, 5, 7; 3 for three depthwise convolutions.
        affine: whether the normalisations have parameters.
    """

    def __init__(self, layer: Layer, choice: int, *, affine: bool) -> None:
        super().__init__()
        inputs, mid, outputs = branch_channels(layer)
        kernel, stride = KERNELS[choice], layer.stride
        widths = (inputs, mid, mid, outputs)
        if choice == XCEPTION:
            branch = [
                part
                for number in range(3)
                for part in (
                    *_depthwise(widths[number], 3, 1 if number else stride, affine=affine),
                    *_pointwise(widths[number], widths[number + 1], affine=affine),
                )
            ]
        else:
            branch = [
                *_pointwise(inputs, mid, affine=affine),
                *_depthwise(mid, kernel, stride, affine=affine),
                *_pointwise(mid, outputs, affine=affine),
            ]
        self.branch_main = nn.Sequential(*branch)
        self.branch_proj: nn.Sequential | None = None
        if stride == 2:
            self.branch_proj = nn.Sequential(
                *_depthwise(inputs, kernel, 2, affine=affine), *_pointwise(inputs, inputs, affine=affine)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride)).

        At stride 1 the even channels come first, untouched, then what the branch makes of the odd ones.
        """
        if self.branch_proj is None:
            return torch.cat([x[:, 0::2], self.branch_main(x[:, 1::2])], dim=1)
        return torch.cat([self.branch_proj(x), self.branch_main(x)], dim=1)


class ShuffleParts(ChainParts):
    """What ShuffleNetV2 networks consist of.

    Args:
        classes: of the images.
        affine: whether the normalisations have parameters.
    """

    stem_stride = 2

    def __init__(self, classes: int, *, affine: bool) -> None:
        self._classes, self._affine = classes, affine

    def stem(self) -> nn.Module:
        """Convolution 3x3 of stride 2, batch normalisation, ReLU."""
        return nn.Sequential(
            nn.Conv2d(3, STEM, 3, 2, 1, bias=False), nn.BatchNorm2d(STEM, affine=self._affine), nn.ReLU(inplace=True)
        )

    def block(self, layer: Layer, choice: int) -> nn.Module:
        """A ShuffleNetV2 block."""
        return ShuffleBlock(layer, choice, affine=self._affine)

    def head(self) -> nn.Module:
        """Convolution 1x1, batch normalisation, ReLU, average pooling, dropout, classifier without bias."""
        return nn.Sequential(
            *_pointwise(_LAST_MAP, LAST, affine=self._affine),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(_DROPOUT),
            nn.Linear(LAST, self._classes, bias=False),
        )

    def initialise(self, network: nn.Module) -> None:
        """Normal weights: 0.01 in the first convolution and the classifier, else 1 / (inputs of a group); beta 1e-4."""
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                std = 0.01 if name.startswith("stem.") else 1.0 / module.weight.shape[1]
                nn.init.normal_(module.weight, 0, std)
            elif isinstance(module, nn.BatchNorm2d) and module.affine:
                nn.init.constant_(module.bias, 1e-4)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)


def _pointwise(inputs: int, outputs: int, *, affine: bool) -> Iterator[nn.Module]:
    yield nn.Conv2d(inputs, outputs, 1, bias=False)
    yield nn.BatchNorm2d(outputs, affine=affine)
    yield nn.ReLU(inplace=True)


def _depthwise(channels: int, kernel: int, stride: int, *, affine: bool) -> Iterator[nn.Module]:
    yield nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    yield nn.BatchNorm2d(channels, affine=affine)
