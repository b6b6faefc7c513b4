"""MaskRefineNet: from a crop, a click and a rough mask to a better mask (arXiv 2303.15062, Section 3.3).

A U-Net on ResNet-101 with atrous spatial pyramid pooling (ASPP, arXiv 1706.05587) at its bottom. The input has
3 + (C + 1) + 1 channels: the normalised crop, a heat map of the click in the channel of its class + 1, and the binary
rough mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.models.weights import load_exactly
from vtk_cli.segment.refine.configurations import RefineConfig

ENCODER = "resnet101"
"""The timm network whose weights the encoder starts from, all but its first convolution."""
_STEM = "conv1.weight"


def input_channels(classes: int) -> int:
    """The channels of the input for C classes: 85 for COCO's 80."""
    return 3 + (classes + 1) + 1


class ConvBlock(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU; the size of the map stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class GlobalBlock(nn.Sequential):
    """The mean of the map through a block, spread over the map again."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *ConvBlock(inputs, outputs))

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        pooled = features
        for module in self:
            pooled = module(pooled)
        return _resized(pooled, features.shape[-2:])


class SpatialPyramid(nn.Module):
    """ASPP: a map at several reaches side by side, then joined."""

    def __init__(self, inputs: int, outputs: int, rates: Sequence[int]) -> None:
        super().__init__()
        near: list[nn.Module] = [GlobalBlock(inputs, outputs), ConvBlock(inputs, outputs)]
        self.convs = nn.ModuleList([*near, *(ConvBlock(inputs, outputs, 3, rate) for rate in rates)])
        self.project = ConvBlock(len(self.convs) * outputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        joined: Tensor = self.project(torch.cat([conv(features) for conv in self.convs], dim=1))
        return joined


class Decoder(nn.Module):
    """Up to the size of an encoder's map, joined with it, and narrowed."""

    def __init__(self, inputs: int, skip: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(ConvBlock(inputs + skip, middle), ConvBlock(middle, outputs, 3))

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, h, w) and (B, skip, H, W) to (B, outputs, H, W)."""
        joined: Tensor = self.conv(torch.cat([_resized(features, skip.shape[-2:]), skip], dim=1))
        return joined


class MaskRefineNet(nn.Module):
    """The published network.

    Args:
        classes: C.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = timm.create_model(
            ENCODER, features_only=True, out_indices=(0, 1, 2, 3, 4), in_chans=input_channels(classes)
        )
        self.aspp = SpatialPyramid(2048, 512, (3, 6, 9))
        self.decoder_3 = Decoder(512, 1024, 512, 256)
        self.decoder_2 = Decoder(256, 512, 256, 128)
        self.decoder_1 = Decoder(128, 256, 128, 64)
        self.decoder_0 = Decoder(64, 64, 64, 64)
        self.head = _head(64)

    def forward(self, crops: Tensor) -> Tensor:
        """Crops (B, C + 5, S, S), S a multiple of 32, to logits (B, 2, S, S): background, object."""
        stem, *skips, deepest = self.encoder(crops)
        features = self.aspp(deepest)
        for decoder, skip in zip((self.decoder_3, self.decoder_2, self.decoder_1), reversed(skips), strict=True):
            features = decoder(features, skip)
        return _resized(self.head(self.decoder_0(features, stem)), crops.shape[-2:])


class MicroRefineNet(nn.Module):
    """A U-Net of three levels, 24, 48 and 64 channels, that trains on a CPU in a minute.

    Args:
        classes: C.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.down_0 = _two_blocks(input_channels(classes), 24)
        self.down_1 = _two_blocks(24, 48)
        self.down_2 = _two_blocks(48, 64)
        self.up_1 = _two_blocks(64 + 48, 48)
        self.up_0 = _two_blocks(48 + 24, 24)
        self.head = _head(24)

    def forward(self, crops: Tensor) -> Tensor:
        """Crops (B, C + 5, S, S), S a multiple of 4, to logits (B, 2, S, S): background, object."""
        fine = self.down_0(crops)
        middle = self.down_1(F.max_pool2d(fine, 2))
        features = self.down_2(F.max_pool2d(middle, 2))
        features = self.up_1(torch.cat([_resized(features, middle.shape[-2:]), middle], dim=1))
        logits: Tensor = self.head(self.up_0(torch.cat([_resized(features, fine.shape[-2:]), fine], dim=1)))
        return logits


def build_refine_network(config: RefineConfig, classes: int) -> MaskRefineNet | MicroRefineNet:
    """The network of a configuration for C classes, with random weights from torch's global generator."""
    return MicroRefineNet(classes) if config.name == "micro" else MaskRefineNet(classes)


def load_encoder(network: MaskRefineNet, state: Mapping[str, Tensor], where: str) -> None:
    """Load a classifier's weights (`ENCODER` by timm's or torchvision's names) into the encoder.

    Its first convolution, which has other inputs, stays as it is; the classifier is passed over.

    Args:
        network: its encoder is changed.
        state: of the classifier.
        where: the file, for the message.

    Raises:
        UserError: the weights are those of another network.
    """
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("fc.") and name != _STEM}
    load_exactly(network.encoder, {**kept, _STEM: network.encoder.get_parameter(_STEM)}, where)


def official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights by the names of this network; names that it does not have stay and are refused when loaded.

    They were trained with the click in the channel of the class for training and of the class + 1 for use; only the
    latter is what `MaskRefineNet` is given.
    """
    renamed = (("layer0.0.", "encoder.conv1."), ("layer0.1.", "encoder.bn1."), ("layer1.1.", "encoder.layer1."))
    stages = tuple((f"layer{number}.", f"encoder.layer{number}.") for number in (2, 3, 4))
    names = {}
    for name, tensor in state.items():
        old, new = next(((old, new) for old, new in (*renamed, *stages) if name.startswith(old)), ("", ""))
        names[new + name.removeprefix(old)] = tensor
    return names


def _head(inputs: int) -> nn.Conv2d:
    head = nn.Conv2d(inputs, 2, 1)
    nn.init.normal_(head.weight, std=0.001)
    return head


def _two_blocks(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvBlock(inputs, outputs, 3), ConvBlock(outputs, outputs, 3))


def _resized(features: Tensor, size: Sequence[int]) -> Tensor:
    if features.shape[-2:] == tuple(size):
        return features
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)
