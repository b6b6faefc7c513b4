"""SOLOv2 (arXiv 2003.10152): each cell of a grid predicts a class and the 1 x 1 kernel that reads its mask.

Parameters of the two heads have the names of the published PointWSSIS weights.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from vtk_cli.segment.solov2.backbone import build_backbone
from vtk_cli.segment.solov2.configurations import SegmenterConfig
from vtk_cli.segment.solov2.predictions import LevelOutput, Outputs

PRIOR = 0.01
"""The probability of every class in every cell that the category branch starts from (arXiv 1708.02002)."""


class InstanceHead(nn.Module):
    """The category and the kernel branch, the same for all levels.

    Args:
        config: the network.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        width = config.tower_width
        self.grids = config.grids
        self.cate_tower = _tower(config.fpn_width, config)
        self.kernel_tower = _tower(config.fpn_width + 2, config)
        self.cate_pred = nn.Conv2d(width, config.classes, 3, padding=1)
        self.kernel_pred = nn.Conv2d(width, config.embedding, 3, padding=1)
        _initialise(self, config.init_std)
        nn.init.constant_(self.cate_pred.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]  # it has one

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[LevelOutput, ...]:
        """Level inputs (B, C, H_l, W_l), the finest first, to what each level predicts."""
        return tuple(self._level(each, grid) for each, grid in zip(maps, self.grids, strict=True))

    def _level(self, features: Tensor, grid: int) -> LevelOutput:
        cells = F.interpolate(with_coordinates(features), size=(grid, grid), mode="bilinear", align_corners=False)
        category = self.cate_pred(self.cate_tower(cells[:, :-2]))
        return LevelOutput(category, self.kernel_pred(self.kernel_tower(cells)))


class MaskHead(nn.Module):
    """The mask features: the maps of the pyramid, each brought to the stride of the masks, summed.

    Args:
        config: the network.
        strides: of the maps; the last map is seen with its coordinates.
    """

    def __init__(self, config: SegmenterConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        doublings = [round(math.log2(stride / config.mask_stride)) for stride in strides]
        widths = [config.fpn_width + (2 if stride == strides[-1] else 0) for stride in strides]
        self.convs_all_levels = nn.ModuleList(
            _brought_up(width, config.mask_width, count, config.groups)
            for width, count in zip(widths, doublings, strict=True)
        )
        self.conv_pred = nn.Sequential(*_block(config.mask_width, config.embedding, 1, config.groups))
        _initialise(self, config.init_std)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """(B, E, H / mask stride, W / mask stride), not negative, from P2..P5 (or the micro network's three)."""
        seen = (*maps[:-1], with_coordinates(maps[-1]))
        summed = torch.stack([up(each) for up, each in zip(self.convs_all_levels, seen, strict=True)]).sum(0)
        features: Tensor = self.conv_pred(summed)
        return features


class SOLOv2(nn.Module):
    """The network.

    Args:
        config: what it is.

    Raises:
        UserError: the backbone is unknown, or has no maps of strides 4, 8, 16, 32.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config)
        self.fpn = FeaturePyramidNetwork(list(self.backbone.widths), config.fpn_width)
        self.ins_head = InstanceHead(config)
        self.mask_head = MaskHead(config, self.backbone.strides)
        self._level_inputs = five_levels if config.pyramid == "five" else tuple

    def forward(self, images: Tensor) -> Outputs:
        """What the network sees in a batch.

        Args:
            images: (B, 3, H, W), normalised, then padded with zeros at the right and the bottom to multiples of
                `config.padding_multiple`.
        """
        return self.judge(self.backbone(images))

    def judge(self, maps: tuple[Tensor, ...]) -> Outputs:
        """All but the backbone: its maps (B, C_i, H_i, W_i) to what the network sees in them."""
        pyramid = tuple(self.fpn(OrderedDict((str(index), each) for index, each in enumerate(maps))).values())
        return Outputs(self.ins_head(self._level_inputs(pyramid)), self.mask_head(pyramid))


def with_coordinates(features: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C + 2, H, W): x, then y of each cell, from -1 to 1 with both ends (arXiv 1807.03247)."""
    B, _, H, W = features.shape
    x = torch.linspace(-1, 1, W, device=features.device, dtype=features.dtype)
    y = torch.linspace(-1, 1, H, device=features.device, dtype=features.dtype)
    return torch.cat([features, x.expand(B, 1, H, W), y[:, None].expand(B, 1, H, W)], 1)


def five_levels(pyramid: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """P2..P5 to the inputs of five levels: P2 at half its size, P3, P4, P5, and P6 at the size of P5."""
    p2, p3, p4, p5 = pyramid
    p6 = F.max_pool2d(p5, kernel_size=1, stride=2)
    finest = F.interpolate(p2, size=p3.shape[-2:], mode="bilinear", align_corners=False)
    coarsest = F.interpolate(p6, size=p5.shape[-2:], mode="bilinear", align_corners=False)
    return finest, p3, p4, p5, coarsest


def parameter_count(module: nn.Module) -> int:
    """How many numbers a module can learn."""
    return sum(parameter.numel() for parameter in module.parameters())


def _tower(inside: int, config: SegmenterConfig) -> nn.Sequential:
    widths = [inside, *[config.tower_width] * config.tower_depth]
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*(part for before, after in pairs for part in _block(before, after, 3, config.groups)))


def _brought_up(inside: int, outside: int, doublings: int, groups: int) -> nn.Sequential:
    """A convolution at each size on the way up; one where there is no way to go."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(max(1, doublings)):
        parts[f"conv{index}"] = nn.Sequential(*_block(outside if index else inside, outside, 3, groups))
        if doublings:
            parts[f"upsample{index}"] = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(parts)


def _block(inside: int, outside: int, side: int, groups: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv2d(inside, outside, side, padding=side // 2, bias=False)
    return convolution, nn.GroupNorm(groups, outside), nn.ReLU()


def _initialise(head: nn.Module, std: float) -> None:
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
