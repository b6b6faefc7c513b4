"""X-ViT: a ViT whose keys and values see the frames beside (arXiv 2106.05968, Section 3), trained as in 2207.09067.

Modules have the names of github.com/1adrianb/video-transformers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import torch
from timm.layers import Attention, DropPath
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

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

SHIFTED_PARTS = 4
"""One channel in so many comes from the frame after, and one in so many from the frame before."""
_TORCH_EPS = 1e-5


class XViT(VideoTransformer):
    """A ViT on each frame with shifted keys and values, and one transformer block over the class tokens of the frames.

    Args:
        shape: of the ViT.
        frames: T of the temporal positions, which start at zero.
        side: of the frames, in pixels; patches fill it.
        drop_path: stochastic depth of the ViT's last block; it grows linearly from 0.
        dropout: of the class feature.
        shifted_blocks: which blocks shift, from 0; None for all.

    Raises:
        UserError: patches do not fill the frames.
    """

    def __init__(
        self,
        shape: ViTShape,
        *,
        frames: int,
        side: int,
        drop_path: float = 0.0,
        dropout: float = 0.5,
        shifted_blocks: Collection[int] | None = None,
    ) -> None:
        super().__init__(frames, side, shape.patch)
        self.feature_dim = shape.width
        shifted = range(shape.depth) if shifted_blocks is None else shifted_blocks
        self.base_model = FrameViT(shape, frames=frames, side=side, drop_path=drop_path, shifted=shifted)
        self.consensus = FrameConsensus(shape, dropout)

    def tokens(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """See `VideoTransformer.tokens`.

        The tokens are the ViT's, normalised by its last layer norm; the class feature is that of the block over the
        frames after layer norm, a linear layer, GELU and dropout: what a linear classifier sees.
        """
        class_tokens, grid = self.base_model(clips)
        return self.consensus(class_tokens), grid


class FrameViT(nn.Module):
    """A ViT on each frame of a clip, whose blocks shift some channels of keys and values in time."""

    def __init__(self, shape: ViTShape, *, frames: int, side: int, drop_path: float, shifted: Collection[int]) -> None:
        super().__init__()
        patches = patch_grid(side, shape.patch) ** 2
        self.patch_embed = patch_embedding(shape, side)
        self.cls_token = learnt(1, shape.width)
        self.pos_embed = learnt(patches + 1, shape.width)
        self.temp_embed = nn.Parameter(torch.zeros(1, frames, 1, shape.width))
        self.blocks = nn.ModuleList(
            FrameBlock(shape, rate, shifts=index in shifted)
            for index, rate in enumerate(drop_path_rates(drop_path, shape.depth))
        )
        self.norm = shape.norm()
        start_layers(self.blocks, shape.start)

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, S, S) to the frames' class tokens (B, T, C) and patches (B, T, N, C)."""
        batch, _, frames, _, _ = clips.shape
        patches = self.patch_embed(clips.transpose(1, 2).flatten(0, 1))
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        times = nearest_times(self.temp_embed.squeeze(2), frames)
        tokens = tokens.unflatten(0, (batch, frames)) + times.unsqueeze(2)  # (B, T, 1 + N, C)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return tokens[:, :, 0], tokens[:, :, 1:]


class FrameBlock(nn.Module):
    """Attention within each frame, and MLP; each on normalised tokens and with a residual connection."""

    def __init__(self, shape: ViTShape, drop_path: float, *, shifts: bool) -> None:
        super().__init__()
        self.norm1 = shape.norm()
        self.attn = FrameAttention(shape.width, shape.heads, qkv_bias=shape.qkv_bias, shifts=shifts)
        self.norm2 = shape.norm()
        self.mlp = shape.feed_forward()
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, 1 + N, C) to the same; a frame drops its branch alone."""
        tokens = tokens + self._dropped(self.attn(self.norm1(tokens)))
        return tokens + self._dropped(self.mlp(self.norm2(tokens)))

    def _dropped(self, gain: Tensor) -> Tensor:
        kept: Tensor = self.drop_path(gain.flatten(0, 1)).unflatten(0, gain.shape[:2])
        return kept


class FrameAttention(nn.Module):
    """Attention of each frame's tokens to one another, keys and values shifted in time where it `shifts`."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool, shifts: bool) -> None:
        super().__init__()
        self.heads, self.shifts = heads, shifts
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, 1 + N, C) to the same."""
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        if self.shifts:
            keys, values = shifted_in_time(keys), shifted_in_time(values)
        heads = [part.flatten(0, 1).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (queries, keys, values)]
        found = scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)  # (B T, 1 + N, C)
        out: Tensor = self.proj(found).unflatten(0, tokens.shape[:2])
        return out


class FrameConsensus(nn.Module):
    """A class token attends to those of the frames; what it becomes passes a linear layer, GELU and dropout."""

    def __init__(self, shape: ViTShape, dropout: float) -> None:
        super().__init__()
        # The published block has torch's own eps and no biases in its attention.
        shape = dataclasses.replace(shape, norm_eps=_TORCH_EPS, qkv_bias=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.temporal_encoder = nn.Sequential(_Block(shape))
        self.mlp_head = nn.Sequential(shape.norm(), nn.Linear(shape.width, shape.width), nn.GELU(), nn.Dropout(dropout))

    def forward(self, class_tokens: Tensor) -> Tensor:
        """Class tokens of the frames (B, T, C) to class features (B, C)."""
        tokens = torch.cat([self.cls_token.expand(len(class_tokens), -1, -1), class_tokens], dim=1)
        out: Tensor = self.mlp_head(self.temporal_encoder(tokens)[:, 0])
        return out


class _Block(nn.Module):
    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.norm1 = shape.norm()
        self.attn = Attention(shape.width, shape.heads, qkv_bias=shape.qkv_bias)
        self.norm2 = shape.norm()
        self.mlp = shape.feed_forward()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


def shifted_in_time(tokens: Tensor) -> Tensor:
    """Tokens (B, T, N, C) with the first quarter of the channels of frame t + 1, and the second of frame t - 1.

    What would come from before the first frame or after the last is zero. The other half stays. The channels of a head
    are neighbours, so whole heads are shifted where there are four or more.
    """
    part = tokens.shape[-1] // SHIFTED_PARTS
    later, earlier, same = tokens.split([part, part, tokens.shape[-1] - 2 * part], dim=-1)
    empty = torch.zeros_like(later[:, :1])
    later = torch.cat([later[:, 1:], empty], dim=1)
    earlier = torch.cat([empty, earlier[:, :-1]], dim=1)
    return torch.cat([later, earlier, same], dim=-1)
