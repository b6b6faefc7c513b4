"""Motionformer: trajectory attention (arXiv 2106.05392, Section 3.2), as arXiv 2207.09067 trains it.

Modules have the names of github.com/facebookresearch/Motionformer.
"""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

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


class Motionformer(VideoTransformer):
    """A ViT over all patches of a clip with trajectory attention; patches are of one frame.

    Args:
        shape: of the ViT.
        frames: T of the temporal positions, which start at zero.
        side: of the frames, in pixels; patches fill it.
        drop_path: stochastic depth of the last block; it grows linearly from 0.
        values_as_they_are: see `TrajectoryAttention`.

    Raises:
        UserError: patches do not fill the frames.
    """

    def __init__(
        self, shape: ViTShape, *, frames: int, side: int, drop_path: float = 0.2, values_as_they_are: bool = True
    ) -> None:
        super().__init__(frames, side, shape.patch)
        patches = patch_grid(side, shape.patch) ** 2
        self.feature_dim = shape.width
        self.patch_embed = patch_embedding(shape, side)
        self.cls_token = learnt(1, shape.width)
        self.pos_embed = learnt(patches + 1, shape.width)
        self.temp_embed = nn.Parameter(torch.zeros(1, frames, shape.width))
        rates = drop_path_rates(drop_path, shape.depth)
        self.blocks = nn.ModuleList(
            TrajectoryBlock(shape, rate, values_as_they_are=values_as_they_are) for rate in rates
        )
        self.norm = shape.norm()
        self.pre_logits = nn.Sequential()
        self.pre_logits.add_module("fc", nn.Linear(shape.width, shape.width))
        self.pre_logits.add_module("act", nn.Tanh())
        start_layers(self.blocks, shape.start)
        start_layers(self.pre_logits, shape.start)

    def tokens(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """See `VideoTransformer.tokens`; both have passed the last layer norm, a linear layer and tanh."""
        batch, _, frames, _, _ = clips.shape
        patches = self.patch_embed(clips.transpose(1, 2).flatten(0, 1)) + self.pos_embed[:, 1:]
        times = nearest_times(self.temp_embed, frames)
        grid = patches.unflatten(0, (batch, frames)) + times.unsqueeze(2)  # (B, T, N, C)
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        tokens = torch.cat([class_token, grid.flatten(1, 2)], dim=1)  # (B, 1 + T N, C)
        for block in self.blocks:
            tokens = block(tokens, frames)
        tokens = self.pre_logits(self.norm(tokens))
        return tokens[:, 0], tokens[:, 1:].unflatten(1, (frames, -1))


class TrajectoryBlock(nn.Module):
    """Trajectory attention and MLP, each on normalised tokens and with a residual connection."""

    def __init__(self, shape: ViTShape, drop_path: float, *, values_as_they_are: bool) -> None:
        super().__init__()
        self.norm1 = shape.norm()
        self.attn = TrajectoryAttention(
            shape.width, shape.heads, qkv_bias=shape.qkv_bias, values_as_they_are=values_as_they_are
        )
        self.norm2 = shape.norm()
        self.mlp = shape.feed_forward()
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        """Tokens (B, 1 + T N, C) of `frames` frames, the class token first, to the same."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), frames))
        out: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return out


class TrajectoryAttention(nn.Module):
    """Attention along probabilistic trajectories (arXiv 2106.05392, equations 3 to 5).

    A patch st attends to the patches of each frame t' alone, which gives its trajectory y[st, t']; it then attends
    along that: the query is a projection of y[st, t], keys and values are projections of y[st, t']. The class token
    attends to all tokens; patches do not attend to it.

    Args:
        width: C.
        heads: H, divides `width`.
        qkv_bias: whether queries, keys and values have biases.
        values_as_they_are: whether the second values are y[st, t'] itself, not its projection: an error in the code
            that published weights were trained with, whose half of `proj_kv` then does nothing.
    """

    def __init__(self, width: int, heads: int, *, qkv_bias: bool = True, values_as_they_are: bool = True) -> None:
        super().__init__()
        self.heads, self.values_as_they_are = heads, values_as_they_are
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj_q = nn.Linear(width, width, bias=qkv_bias)
        self.proj_kv = nn.Linear(width, 2 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        """Tokens (B, 1 + T N, C) of `frames` frames, the class token first, to the same."""
        queries, keys, values = (self._in_heads(part) for part in self.qkv(tokens).chunk(3, dim=-1))
        class_gain = scaled_dot_product_attention(queries[:, :, :1], keys, values).transpose(1, 2).flatten(2)
        trajectories = _trajectories(queries[:, :, 1:], keys[:, :, 1:], values[:, :, 1:], frames)
        out: Tensor = self.proj(torch.cat([class_gain, self._along(trajectories)], dim=1))
        return out

    def _along(self, trajectories: Tensor) -> Tensor:
        """Attention along trajectories (B, T N, T', C), from the patch's own frame; (B, T N, C)."""
        _, patches, frames, width = trajectories.shape
        own = torch.arange(patches, device=trajectories.device) // (patches // frames)
        at_home = trajectories[:, torch.arange(patches, device=own.device), own]  # (B, T N, C)
        queries = self.proj_q(at_home).unflatten(-1, (self.heads, -1))
        if self.values_as_they_are:
            bias = None if self.proj_kv.bias is None else self.proj_kv.bias[:width]
            keys, values = linear(trajectories, self.proj_kv.weight[:width], bias), trajectories
        else:
            keys, values = self.proj_kv(trajectories).chunk(2, dim=-1)
        keys, values = keys.unflatten(-1, (self.heads, -1)), values.unflatten(-1, (self.heads, -1))
        scores = torch.einsum("bshd,bsfhd->bshf", queries, keys) * queries.shape[-1] ** -0.5
        summed: Tensor = torch.einsum("bshf,bsfhd->bshd", scores.softmax(-1), values).flatten(2)
        return summed

    def _in_heads(self, tokens: Tensor) -> Tensor:
        apart: Tensor = tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, 1 + T N, C / H)
        return apart


def _trajectories(queries: Tensor, keys: Tensor, values: Tensor, frames: int) -> Tensor:
    """Each patch's attention to each frame alone: (B, H, T N, d) three times, to (B, T N, T', H d).

    Frames stand where heads do, so that fused attention never holds a score for every pair of patches.
    """
    batch, heads, patches, _ = queries.shape
    by_frame = [part.flatten(0, 1).unflatten(1, (frames, -1)) for part in (keys, values)]  # (B H, T', N, d)
    every = queries.flatten(0, 1).unsqueeze(1).expand(-1, frames, -1, -1)  # (B H, T', T N, d)
    found = scaled_dot_product_attention(every, *by_frame).unflatten(0, (batch, heads))  # (B, H, T', T N, d)
    trajectories: Tensor = found.permute(0, 3, 2, 1, 4).reshape(batch, patches, frames, -1)
    return trajectories
