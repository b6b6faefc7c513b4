"""A network of three 3D convolutions, for clips of 8 x 24 x 24 that are learned on a CPU in seconds."""

from __future__ import annotations

from torch import Tensor, nn

from vtk_cli.video_pretrain.networks.backbone import VideoBackbone

_LAYERS = (
    (12, (3, 5, 5), (1, 2, 2)),
    (24, (3, 3, 3), (1, 2, 2)),
    (48, (3, 3, 3), (2, 1, 1)),
)
"""(channels, kernel, stride) over time, height, width."""


class C3DTiny(VideoBackbone):
    """Convolution, batch norm and ReLU three times, then the average over time and space."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        channels = 3
        for width, kernel, stride in _LAYERS:
            padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
            convolution = nn.Conv3d(channels, width, kernel, stride=stride, padding=padding, bias=False)
            self.layers.append(nn.Sequential(convolution, nn.BatchNorm3d(width), nn.ReLU(inplace=True)))
            channels = width
        self.feature_dim = channels

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips (B, 3, T, H, W) to features (B, 48)."""
        features: Tensor = self.layers(clips).mean((2, 3, 4))
        return features
