"""Necks: the backbone's maps as levels of one width, alone (ViDT) or fused across scales (ViDT+).

Efficient pyramid feature fusion: arXiv 2204.07962, Section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def projection(channels: int, dim: int, groups: int) -> nn.Sequential:
    """A 1 x 1 convolution and a group norm: `channels` to `dim`."""
    convolution = nn.Conv2d(channels, dim, 1)
    nn.init.xavier_uniform_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # this convolution has one
    return nn.Sequential(convolution, nn.GroupNorm(groups, dim))


class LevelProjection(nn.Module):
    """Each map by itself.

    Args:
        widths: channels of the maps, fine to coarse.
        dim: D.
        groups: of the group norms.
    """

    def __init__(self, widths: Sequence[int], dim: int, groups: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(projection(width, dim, groups) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_l, H_l, W_l), fine to coarse, as levels (B, D, H_l, W_l) in the same order."""
        return [level(each) for level, each in zip(self.levels, maps, strict=True)]


class PyramidFusion(nn.Module):
    """Each map with all the coarser ones.

    With u_i the projected maps, p_3 = R(u_3) and p_i = R(Conv(upsampled p_{i+1}) + R'(u_i)).

    Args:
        widths: channels of the maps, fine to coarse.
        dim: D.
        groups: of the group norms.
    """

    def __init__(self, widths: Sequence[int], dim: int, groups: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(projection(width, dim, groups) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(dim, dim, 1) for _ in widths[:-1])
        self.lateral = nn.ModuleList(Bottleneck(dim) for _ in widths[:-1])
        self.refine = nn.ModuleList(Bottleneck(dim) for _ in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_l, H_l, W_l), fine to coarse, as levels (B, D, H_l, W_l), coarse to fine."""
        reduced = [reduce(each) for reduce, each in zip(self.reduce, maps, strict=True)]
        fused = [self.refine[-1](reduced[-1])]
        for index in range(len(maps) - 2, -1, -1):
            finer = reduced[index]
            coarser = F.interpolate(fused[-1], size=finer.shape[-2:], mode="bilinear", align_corners=True)
            fused.append(self.refine[index](self.smooth[index](coarser) + self.lateral[index](finer)))
        return fused


class Bottleneck(nn.Module):
    """R(x) = x + Conv1x1(ReLU(Conv3x3(ReLU(Conv1x1(ReLU(x)))))), a quarter as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = dim // 4
        self.conv1 = nn.Conv2d(dim, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv3 = nn.Conv2d(inner, dim, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, D, H, W) to (B, D, H, W)."""
        inner = self.conv2(F.relu(self.conv1(F.relu(maps))))
        out: Tensor = maps + self.conv3(F.relu(inner))
        return out
