"""SlowOnly (arXiv 1812.03982, Table 1, the slow pathway alone): a ResNet whose last two stages see time.

The names of modules are those of PySlowFast (github.com/facebookresearch/SlowFast), whose weights so fit as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vtk_cli.video_pretrain.networks.backbone import VideoBackbone


@dataclass(frozen=True)
class SlowConfig:
    """A ResNet inflated in time.

    Args:
        blocks: of each of the four stages.
        bottleneck: whether a block is 1x1, 3x3, 1x1 with four times the width at its end, or two 3x3.
        temporal: the temporal kernel of the first convolution of every block, by stage.
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    temporal: tuple[int, ...] = (1, 1, 3, 3)


SLOW_R50 = SlowConfig((3, 4, 6, 3), bottleneck=True)
SLOW_R18 = SlowConfig((2, 2, 2, 2), bottleneck=False)
_WIDTH = 64
_EXPANSION = 4


class SlowOnly(VideoBackbone):
    """Stem 1x7x7 with stride (1, 2, 2), max-pooling 1x3x3, four stages, average over time and space.

    No layer has a stride in time. Convolutions start as in arXiv 1502.01852 (fan out), the last normalisation of each
    block at zero (arXiv 1706.02677, Section 5.1).
    """

    def __init__(self, config: SlowConfig = SLOW_R50) -> None:
        super().__init__()
        self.s1 = nn.ModuleDict({"pathway0_stem": _Stem()})
        channels = _WIDTH
        for stage, (count, temporal) in enumerate(zip(config.blocks, config.temporal, strict=True)):
            width = _WIDTH * 2**stage
            blocks = nn.Sequential()
            for index in range(count):
                stride = 2 if stage and not index else 1
                block = _Block(channels, width, temporal, stride, bottleneck=config.bottleneck)
                blocks.add_module(f"pathway0_res{index}", block)
                channels = block.channels
            self.add_module(f"s{stage + 2}", blocks)
        self.feature_dim = channels
        self._initialise()

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips (B, 3, T, H, W) to features (B, 2048), (B, 512) of an R18."""
        return self.maps(clips).mean((2, 3, 4))

    def maps(self, clips: Tensor) -> Tensor:
        """The last stage's maps (B, D, T, H / 32, W / 32)."""
        out: Tensor = self.s1["pathway0_stem"](clips)
        for stage in range(2, 6):
            out = self.get_submodule(f"s{stage}")(out)
        return out

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, _Block) and isinstance(norm := module.branch2[-1], nn.BatchNorm3d):
                nn.init.zeros_(norm.weight)


class _Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, _WIDTH, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(_WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.pool_layer = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, clips: Tensor) -> Tensor:
        out: Tensor = self.pool_layer(self.relu(self.bn(self.conv(clips))))
        return out


class _Block(nn.Module):
    """A residual block: `branch2`, and `branch1` where the shapes differ."""

    def __init__(self, channels: int, width: int, temporal: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        self.channels = width * _EXPANSION if bottleneck else width
        if stride != 1 or channels != self.channels:
            self.branch1 = _convolution(channels, self.channels, (1, 1, 1), stride)
            self.branch1_bn = nn.BatchNorm3d(self.channels)
        self.branch2 = nn.Sequential()
        if bottleneck:
            layers = [
                ("a", _convolution(channels, width, (temporal, 1, 1))),
                ("b", _convolution(width, width, (1, 3, 3), stride)),
                ("c", _convolution(width, self.channels, (1, 1, 1))),
            ]
        else:
            layers = [
                ("a", _convolution(channels, width, (temporal, 3, 3), stride)),
                ("b", _convolution(width, width, (1, 3, 3))),
            ]
        for name, convolution in layers:
            self.branch2.add_module(name, convolution)
            self.branch2.add_module(f"{name}_bn", nn.BatchNorm3d(convolution.out_channels))
            if name != layers[-1][0]:
                self.branch2.add_module(f"{name}_relu", nn.ReLU(inplace=True))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        kept = self.branch1_bn(self.branch1(maps)) if hasattr(self, "branch1") else maps
        out: Tensor = self.relu(kept + self.branch2(maps))
        return out


def _convolution(inside: int, outside: int, kernel: tuple[int, int, int], stride: int = 1) -> nn.Conv3d:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(inside, outside, kernel, stride=(1, stride, stride), padding=padding, bias=False)
