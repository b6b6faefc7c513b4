"""The network of one architecture: a classifier whose feature maps a detector or a segmenter can use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class FeatureMap(NamedTuple):
    """A feature map of a network: its channels, and how many pixels of the input one of its cells spans each way."""

    channels: int
    stride: int


class StandAlone(nn.Module, ABC):
    """A network of one architecture.

    Args:
        feature_info: of its feature maps, the finest first.
    """

    def __init__(self, feature_info: tuple[FeatureMap, ...]) -> None:
        super().__init__()
        self.feature_info = feature_info

    @abstractmethod
    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last map of each resolution, as `feature_info` describes them.

        Args:
            images: (B, C, H, W).

        Returns:
            (B, channels, ceil(H / stride), ceil(W / stride)) for each.
        """

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from the last feature map."""

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, classes) of images (B, C, H, W)."""
        return self.classify(self.feature_maps(images)[-1])
