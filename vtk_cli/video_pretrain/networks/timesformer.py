"""TimeSformer: divided space-time attention (arXiv 2102.05095, Section 3, `T+S`), as arXiv 2207.09067 trains it.

A block attends over time for each patch, then over space for each frame. The class token takes part in space alone:
every frame attends with a copy of it, and what the copies gain is averaged. Modules have the names of
github.com/alinlab/temporal-selfsupervision.
"""

from __future__ import annotations

import torch
from timm.layers import Attention, DropPath
from torch import Tensor, nn

from vtk_cli.video_pretrain.networks.backbone import VideoTransformer
from vtk_cli.video_pretrain.networks.vit_shape import (
    ViTShape,
    drop_path_rates,
    learnt,
    nearest_times,
    patch_embedding,
    patch_grid,
    start_layers,
)


class TimeSformer(VideoTransformer):
    """A ViT with attention over time before that over space.

    Args:
        shape: of the ViT.
        frames: T of the temporal positions, which start at zero.
        side: of the frames, in pixels; patches fill it.
        drop_path: stochastic depth of the last block; it grows linearly from 0.
        zero_temporal: whether the linear layer after the attention over time starts at zero, so that the network starts
            as the image network it takes its weights from.

    Raises:
        UserError: patches do not fill the frames.
    """

    def __init__(
        self, shape: ViTShape, *, frames: int, side: int, drop_path: float = 0.1, zero_temporal: bool = True
    ) -> None:
        super().__init__(frames, side, shape.patch)
        patches = patch_grid(side, shape.patch) ** 2
        self.feature_dim = shape.width
        self.patch_embed = patch_embedding(shape, side)
        self.cls_token = learnt(1, shape.width)
        self.pos_embed = learnt(patches + 1, shape.width)
        self.time_embed = nn.Parameter(torch.zeros(1, frames, shape.width))
        self.blocks = nn.ModuleList(DividedBlock(shape, rate) for rate in drop_path_rates(drop_path, shape.depth))
        self.norm = shape.norm()
        start_layers(self.blocks, shape.start)
        for block in self.blocks if zero_temporal else ():
            for parameter in block.get_submodule("temporal_fc").parameters():
                nn.init.zeros_(parameter)

    def tokens(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """See `VideoTransformer.tokens`; both are normalised by the last layer norm."""
        batch, _, frames, _, _ = clips.shape
        patches = self.patch_embed(clips.transpose(1, 2).flatten(0, 1)) + self.pos_embed[:, 1:]
        times = nearest_times(self.time_embed, frames)
        grid = patches.unflatten(0, (batch, frames)) + times.unsqueeze(2)  # (B, T, N, C)
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)  # (B, 1, C)
        for block in self.blocks:
            class_token, grid = block(class_token, grid)
        return self.norm(class_token).squeeze(1), self.norm(grid)


class DividedBlock(nn.Module):
    """Attention over time, attention over space, MLP; each on normalised tokens and with a residual connection."""

    def __init__(self, shape: ViTShape, drop_path: float) -> None:
        super().__init__()
        self.temporal_norm1 = shape.norm()
        self.temporal_attn = Attention(shape.width, shape.heads, qkv_bias=shape.qkv_bias)
        self.temporal_fc = nn.Linear(shape.width, shape.width)
        self.norm1 = shape.norm()
        self.attn = Attention(shape.width, shape.heads, qkv_bias=shape.qkv_bias)
        self.norm2 = shape.norm()
        self.mlp = shape.feed_forward()
        self.drop_path = DropPath(drop_path)

    def forward(self, class_token: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Class token (B, 1, C) and patches (B, T, N, C), to the same."""
        grid = grid + self._over_time(grid)
        class_gain, grid_gain = self._over_space(class_token, grid)
        class_token, grid = class_token + class_gain, grid + grid_gain
        tokens = torch.cat([class_token, grid.flatten(1, 2)], dim=1)
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return tokens[:, :1], tokens[:, 1:].unflatten(1, grid.shape[1:3])

    def _over_time(self, grid: Tensor) -> Tensor:
        sequences = grid.transpose(1, 2).flatten(0, 1)  # (B N, T, C)
        gain = self.temporal_fc(self.drop_path(self.temporal_attn(self.temporal_norm1(sequences))))
        restored: Tensor = gain.unflatten(0, (len(grid), -1)).transpose(1, 2)
        return restored

    def _over_space(self, class_token: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        copies = class_token.unsqueeze(1).expand(-1, grid.shape[1], -1, -1)
        sequences = torch.cat([copies, grid], dim=2).flatten(0, 1)  # (B T, 1 + N, C)
        gain = self.drop_path(self.attn(self.norm1(sequences))).unflatten(0, grid.shape[:2])
        return gain[:, :, 0].mean(1, keepdim=True), gain[:, :, 1:]
