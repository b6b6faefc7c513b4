"""The Reconfigured Attention Module: Swin's attention, with which DET tokens attend as well (arXiv 2110.03921, 3.1).

Patches attend to patches, in windows, as in Swin. DET tokens attend to each other, and in the last stage to all
patches and each other under one softmax. Patches never attend to DET tokens. All of it uses one set of parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.detect.linear import Linear, linear_in_training
from vtk_cli.detect.positions import HIDDEN, pad_bottom_right, relative_index
from vtk_cli.detect.window_attention import attend_in_windows


class Windows(NamedTuple):
    """How the maps of a stage are cut.

    Args:
        size: height and width of a window, in cells.
        padded: height and width of the map, padded to whole windows.
        shift: by how many cells every second block shifts its windows, down and right.
        mask: (number of windows, cells, cells) of the shifted windows, as `shift_mask` gives it; None if none shifts.
    """

    size: tuple[int, int]
    padded: tuple[int, int]
    shift: tuple[int, int]
    mask: Tensor | None


class ReconfiguredAttention(nn.Module):
    """Attention of patches and of DET tokens with Swin's parameters.

    Args:
        dim: C.
        heads: M; each has C / M channels, and logits are scaled by (C / M)^-1/2.
        window: side of the largest window, in cells: the table of biases has (2 * window - 1)^2 rows.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.qkv = Linear(dim, dim * 3)
        self.proj = Linear(dim, dim)
        self.register_buffer("index", relative_index((window, window), window), persistent=False)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def patches(self, patches: Tensor, windows: Windows, *, shifted: bool) -> Tensor:
        """PATCH x PATCH: attention within windows.

        The map is padded with zeros to whole windows, so padding enters as keys and values of bias alone.

        Args:
            patches: (B, H, W, C), normalised.
            windows: of this stage.
            shifted: whether this block shifts its windows.

        Returns:
            (B, H, W, C).
        """
        B, H, W, C = patches.shape
        height, width = windows.padded
        padded = pad_bottom_right(patches, height - H, width - W)
        mask = windows.mask if shifted else None
        if mask is not None:
            padded = padded.roll((-windows.shift[0], -windows.shift[1]), (1, 2))
        (h, w), M = windows.size, self.heads
        rows, columns, cells = height // h, width // w, h * w
        cut = self.qkv(padded).reshape(B, rows, h, columns, w, 3, M, C // M).permute(5, 0, 1, 3, 6, 2, 4, 7)
        bias = self._bias(windows.size)[None]  # (1, heads, cells, cells)
        if mask is not None:
            bias = bias + mask[:, None].to(bias.dtype)  # (n, heads, cells, cells)
        seen = _seen_in_windows(cut.reshape(3, B, rows * columns, M, cells, C // M), bias)
        maps = seen.reshape(B, rows, columns, M, h, w, C // M).permute(0, 1, 4, 2, 5, 3, 6).reshape(B, height, width, C)
        if mask is not None:
            maps = maps.roll(windows.shift, (1, 2))
        out: Tensor = self.proj(maps[:, :H, :W])
        return out

    def tokens(self, tokens: Tensor) -> Tensor:
        """DET x DET: full attention among the DET tokens.

        Args:
            tokens: (B, Q, C), normalised, with their positions.

        Returns:
            (B, Q, C).
        """
        q, k, v = self._split(self.qkv(tokens), 3)
        return self._project(F.scaled_dot_product_attention(q, k, v))

    def tokens_and_patches(self, tokens: Tensor, patches: Tensor, padding: Tensor) -> Tensor:
        """DET x [PATCH, DET]: one softmax over all patches and all DET tokens.

        Args:
            tokens: (B, Q, C), normalised, with their positions.
            patches: (B, N, C), normalised, with their positions.
            padding: (B, N) bool, True = a padded patch; its logits are lowered by 100.

        Returns:
            (B, Q, C).
        """
        C = tokens.shape[-1]
        q, k, v = self._split(self.qkv(tokens), 3)
        linear = linear_in_training if self.training else F.linear
        patch_k, patch_v = self._split(linear(patches, self.qkv.weight[C:], self.qkv.bias[C:]), 2)
        mask = F.pad(padding.to(q.dtype) * HIDDEN, (0, tokens.shape[1]))[:, None, None]
        # Torch's fast kernels take no stride of 0 along the queries, and this mask is small.
        mask = mask.expand(-1, -1, tokens.shape[1], -1)
        keys, values = torch.cat((patch_k, k), 2), torch.cat((patch_v, v), 2)
        return self._project(F.scaled_dot_product_attention(q, keys, values, attn_mask=mask))

    def _bias(self, size: tuple[int, int]) -> Tensor:
        """(heads, cells, cells) of windows of `size`."""
        table, largest = self.relative_position_bias_table, size == (self.window, self.window)
        index = self.get_buffer("index") if largest else relative_index(size, self.window, table.device)
        return table[index].permute(2, 0, 1)

    def _split(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts * C) as `parts` tensors (B, heads, N, C / heads)."""
        B, N, _ = projected.shape
        return projected.reshape(B, N, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _project(self, seen: Tensor) -> Tensor:
        out: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return out


def _seen_in_windows(qkv: Tensor, bias: Tensor) -> Tensor:
    """Attention of (3, B, n, M, cells, C / M) with a bias (1 or n, M, cells, cells): (B, n, M, cells, C / M)."""
    if bias.requires_grad and qkv.device.type == "cpu" and qkv.dtype == bias.dtype:
        return attend_in_windows(qkv, bias)
    _, B, n, M, cells, width = qkv.shape
    # Torch's fast kernels take four dimensions: windows join the heads where each has a mask, else the samples.
    fold = (B * n, M, cells, width) if len(bias) == 1 else (B, n * M, cells, width)
    q, k, v = qkv.reshape(3, *fold)
    bias = bias.reshape(1, -1, cells, cells).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).reshape(qkv.shape[1:])
