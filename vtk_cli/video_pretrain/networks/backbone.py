"""What every video network is to the rest: clips in, a feature vector a clip out; transformers give tokens as well."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class VideoBackbone(nn.Module, ABC):
    """A video network without a classifier."""

    feature_dim: int
    """D, the width of the features."""

    @abstractmethod
    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips (B, 3, T, H, W) to features (B, D)."""


class VideoTransformer(VideoBackbone):
    """A video network whose features come with a token for every patch of every frame.

    Args:
        frames: T that its temporal positions are for; other lengths take the nearest positions.
        side: of the frames, in pixels.
        patch_size: side of a patch, in pixels.
    """

    def __init__(self, frames: int, side: int, patch_size: int) -> None:
        super().__init__()
        self.frames, self.side, self.patch_size = frames, side, patch_size

    @abstractmethod
    def tokens(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised clips (B, 3, T, S, S) to the class feature (B, D) and the tokens (B, T, N, D), row by row."""

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips (B, 3, T, S, S) to class features (B, D)."""
        return self.tokens(clips)[0]
