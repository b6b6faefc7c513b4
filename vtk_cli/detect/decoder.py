"""The deformable decoder, fed by the backbone without an encoder (arXiv 2010.04159; arXiv 2110.03921, Section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.detect.linear import Linear
from vtk_cli.detect.positions import resize_mask
from vtk_kernels import deformable_attention


@dataclass(frozen=True)
class Memory:
    """What the decoder samples from: the cells of all levels, one after another.

    Args:
        cells: (B, S, D), level after level, row after row.
        padding: (B, S) bool, True = padding.
        shapes: (H_l, W_l) of each level.
        valid_ratios: (B, L, 2), the part of each level's columns and of its rows (x, y) that is not padding.
    """

    cells: Tensor
    padding: Tensor
    shapes: tuple[tuple[int, int], ...]
    valid_ratios: Tensor

    def levels(self, cells: Tensor) -> tuple[Tensor, ...]:
        """(B, S, ...) level by level: (B, H_l * W_l, ...)."""
        return torch.split_with_sizes(cells, [height * width for height, width in self.shapes], dim=1)


def memory_of(maps: Sequence[Tensor], mask: Tensor) -> Memory:
    """The levels (B, D, H_l, W_l) of images with the padding mask (B, H, W), ready to sample from."""
    shapes = tuple((each.shape[-2], each.shape[-1]) for each in maps)
    masks = [resize_mask(mask, shape) for shape in shapes]
    ratios = [torch.stack(((~each[:, 0]).float().mean(1), (~each[:, :, 0]).float().mean(1)), -1) for each in masks]
    return Memory(
        cells=torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1),
        padding=torch.cat([each.flatten(1) for each in masks], 1),
        shapes=shapes,
        valid_ratios=torch.stack(ratios, 1),
    )


class DeformableAttention(nn.Module):
    """Each query looks at a few places around its reference, on every level (arXiv 2010.04159, eq. 3).

    Args:
        dim: D.
        heads: M.
        levels: L.
        points: P, places a head looks at on each level.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.initialise()

    def initialise(self) -> None:
        """At first each head looks in a direction of its own, its points at 1, 2, ... cells, all with equal weight."""
        for module in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(module.weight)
        for module in (self.value_proj, self.output_proj, self.attention_weights):
            nn.init.zeros_(module.bias)
        for module in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(module.weight)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack((angle.cos(), angle.sin()), -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.points + 1)
        offsets = direction[:, None, None] * distance[:, None]  # (M, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())

    def forward(self, queries: Tensor, references: Tensor, memory: Memory) -> Tensor:
        """Sampled and summed values.

        Args:
            queries: (B, Q, D).
            references: (B, Q, 2) points or (B, Q, 4) boxes (cx, cy, w, h), in [0, 1] of the unpadded image.
            memory: with L levels.

        Returns:
            (B, Q, D).
        """
        B, Q, _ = queries.shape
        values = self.value_proj(memory.cells)
        # Most batches have no padding. A GPU would have to be waited for, and what is exported may not depend on it.
        if not self.training or memory.padding.device.type != "cpu" or bool(memory.padding.any()):
            values = values.masked_fill(memory.padding[..., None], 0)
        offsets = self.sampling_offsets(queries).view(B, Q, self.heads, self.levels, self.points, 2)
        logits = self.attention_weights(queries).view(B, Q, self.heads, self.levels * self.points)
        ratios = memory.valid_ratios.repeat(1, 1, references.shape[-1] // 2)
        placed = references[:, :, None] * ratios[:, None].to(references.dtype)  # (B, Q, L, 2 or 4)
        values = values.view(B, -1, self.heads, values.shape[-1] // self.heads)
        sampled = deformable_attention(values, memory.shapes, placed, offsets, logits)
        out: Tensor = self.output_proj(sampled)
        return out


class DecoderLayer(nn.Module):
    """Attention among the queries, deformable attention to the memory, and an MLP, each normed after its residual.

    The norms are numbered as in the published weights: `norm2` follows the attention among queries, `norm1` the
    deformable one.
    """

    def __init__(self, dim: int, heads: int, *, levels: int, points: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.cross_attn = DeformableAttention(dim, heads, levels, points)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = Linear(dim, ffn)
        self.linear2 = Linear(ffn, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        for parameter in (*self.self_attn.parameters(), self.linear1.weight, self.linear2.weight):
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor, positions: Tensor, references: Tensor, memory: Memory) -> Tensor:
        """Tokens (B, Q, D) with positions (B, Q, D) and references as `DeformableAttention` takes; new tokens."""
        placed = tokens + positions
        attended, _ = self.self_attn(placed, placed, tokens, need_weights=False)
        tokens = self.norm2(tokens + self.dropout(attended))
        tokens = self.norm1(tokens + self.dropout(self.cross_attn(tokens + positions, references, memory)))
        hidden = self.linear2(self.dropout(F.relu(self.linear1(tokens))))
        out: Tensor = self.norm3(tokens + self.dropout(hidden))
        return out
