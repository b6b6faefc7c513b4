"""Networks as a pooled feature and the maps of their stages, which is what adaptation asks of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError

STAGES = 4
DIGITS = "digits-cnn"
"""The name of the small network of 32 x 32 images."""
_DIGITS_CHANNELS = (16, 32, 64)
_DIGITS_SIDE = 32


class Backbone(nn.Module, ABC):
    """A network without classifier.

    Args:
        stage_channels: of the maps that `forward` gives.
        feature_dim: length of the pooled feature.
    """

    def __init__(self, stage_channels: Sequence[int], feature_dim: int) -> None:
        super().__init__()
        self.stage_channels, self.feature_dim = tuple(stage_channels), feature_dim

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images (B, 3, S, S) to the feature (B, D) and a map (B, C, H, W) for each stage."""


class TimmBackbone(Backbone):
    """A timm network: its pooled feature, and the maps of up to four stages.

    Of networks that halve the resolution, the last blocks of the last four resolutions; of those that do not (ViT),
    four evenly spaced blocks, without class token.

    Args:
        network: its classifier is taken off.
        name: of the network, for errors.
        side: of the images, in pixels.

    Raises:
        UserError: it gives no maps, or does not take such images.
    """

    def __init__(self, network: nn.Module, name: str, side: int) -> None:
        infos: Any = getattr(network, "feature_info", None)
        if not infos or not hasattr(network, "forward_intermediates") or not hasattr(network, "forward_head"):
            fix = "take a timm network that does, e.g. resnet50, convnext_t, vit_s"
            raise UserError("does not give the maps of its stages", name, fix)
        described: list[Mapping[str, Any]] = list(infos.info if hasattr(infos, "info") else infos)
        indices = stage_indices([int(info["reduction"]) for info in described])
        network.reset_classifier(0)  # type: ignore[operator]
        feature, maps = _tried(network, indices, side, name)
        super().__init__([each.shape[1] for each in maps], feature.shape[1])
        self.network, self.indices = network, indices

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images (B, 3, S, S) to the feature (B, D) and a map (B, C, H, W) for each stage."""
        return _seen(self.network, self.indices, images)


class DigitsBackbone(Backbone):
    """Three times convolution 3 x 3, batch normalisation, ReLU and max pooling; the last map flattened.

    Args:
        side: of the images, in pixels; a multiple of 8.
    """

    def __init__(self, side: int = _DIGITS_SIDE) -> None:
        super().__init__(_DIGITS_CHANNELS, _DIGITS_CHANNELS[-1] * (side // 8) ** 2)
        before = (3, *_DIGITS_CHANNELS)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))
            for i, o in zip(before, _DIGITS_CHANNELS, strict=False)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images (B, 3, S, S) to the feature (B, S^2) and a map for each block."""
        maps = []
        for block in self.blocks:
            images = block(images)
            maps.append(images)
        return images.flatten(1), tuple(maps)


class DigitsClassifier(nn.Module):
    """The small network with a linear classifier, as an adapted one is exported.

    Args:
        num_classes: how many logits.
        side: of the images, in pixels.
    """

    def __init__(self, num_classes: int, side: int = _DIGITS_SIDE) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.network = DigitsBackbone(side)
        self.classifier = nn.Linear(self.network.feature_dim, num_classes)
        half = (0.5, 0.5, 0.5)
        self.pretrained_cfg: dict[str, Any] = {
            "input_size": (3, side, side),
            "mean": half,
            "std": half,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
        }

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to logits (B, C)."""
        logits: Tensor = self.classifier(self.network(images)[0])
        return logits

    def get_classifier(self) -> nn.Linear:
        """The last layer, called as timm's networks call it."""
        return self.classifier


def digits_classifier(num_classes: int = 10, side: int = _DIGITS_SIDE) -> DigitsClassifier:
    """For `create_network("py:vtk_cli.adapt.backbones:digits_classifier=FILE")`."""
    return DigitsClassifier(num_classes, side)


def stage_indices(reductions: Sequence[int]) -> tuple[int, ...]:
    """Which blocks are the stages.

    Args:
        reductions: how many pixels a cell of each block's map spans.

    Returns:
        Up to four positions, ascending.
    """
    if len(set(reductions)) == 1:
        depth = len(reductions)
        return tuple(sorted({depth * (stage + 1) // STAGES - 1 for stage in range(STAGES)} - {-1}))
    last_of = {reduction: index for index, reduction in enumerate(reductions)}
    return tuple(sorted(last_of.values())[-STAGES:])


def _seen(network: nn.Module, indices: Sequence[int], images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    last, maps = network.forward_intermediates(images, indices=list(indices))  # type: ignore[operator]
    feature: Tensor = network.forward_head(last, pre_logits=True)  # type: ignore[operator]
    return feature.flatten(1), tuple(maps)


def _tried(network: nn.Module, indices: Sequence[int], side: int, name: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What a network makes of a black image; what timm says of its maps is not always true of these."""
    try:
        with torch.no_grad():
            feature, maps = _seen(network.eval(), indices, torch.zeros(1, 3, side, side))
    except Exception as error:  # architectures refuse sizes in as many ways as there are
        what = f"does not take images of {side} x {side} pixels ({str(error).partition(chr(10))[0]})"
        raise UserError(what, name, "choose another --size or another network") from error
    if any(each.ndim != 4 for each in maps):
        raise UserError("gives stages that are no maps", name, "take another network, e.g. resnet50")
    return feature, maps
