"""A Swin transformer that carries DET tokens beside its patches (arXiv 2110.03921, Section 3.1).

Patches and DET tokens pass the same blocks with the same parameters. Patches never look at DET tokens, and before the
first stage with cross-attention the DET tokens look only at each other: until then they are the same for every image,
so they are computed once for a batch, and once for all by whoever keeps `constant_tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vtk_cli.detect.attention import ReconfiguredAttention, Windows
from vtk_cli.detect.configurations import BackboneConfig
from vtk_cli.detect.linear import Linear
from vtk_cli.detect.positions import pad_bottom_right, resize_mask, shift_mask, sine_positions

PATCH = 4
"""Side of a patch, in pixels."""


@dataclass(frozen=True)
class BackboneFeatures:
    """What the backbone gives.

    Args:
        maps: of stages 2, 3, 4 before their merging, (B, 2C, H/8, W/8), (B, 4C, H/16, W/16), (B, 8C, H/32, W/32), and
            the merged last stage, (B, D, H/64, W/64); sides are rounded up. Only the first two where there is no neck.
        tokens: (B, Q, 8C), the DET tokens after the last stage; batch 1 where they do not depend on the image.
    """

    maps: tuple[Tensor, ...]
    tokens: Tensor


@dataclass(frozen=True)
class PatchView:
    """What DET tokens see of the patches in a stage with cross-attention.

    Args:
        positions: (B, H, W, C) sine encoding, added to the patches as keys and values.
        padding: (B, H * W) bool, True = padding.
    """

    positions: Tensor
    padding: Tensor


class PatchEmbedding(nn.Module):
    """Patches of 4 x 4 pixels as tokens; the image is zero-padded to whole patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, ceil(H / 4), ceil(W / 4), C)."""
        H, W = images.shape[-2:]
        if H % PATCH or W % PATCH:
            images = F.pad(images, (0, -W % PATCH, 0, -H % PATCH))
        embedded: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return embedded


class PatchMerging(nn.Module):
    """Four neighbours become one patch; a DET token stands in for all four."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, out, bias=False)

    def patches(self, patches: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), out); neighbours in the order (0,0), (1,0), (0,1), (1,1)."""
        H, W = patches.shape[1:3]
        padded = pad_bottom_right(patches, H % 2, W % 2)
        four = [padded[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(four, -1)))
        return merged

    def tokens(self, tokens: Tensor) -> Tensor:
        """(B, Q, C) to (B, Q, out)."""
        merged: Tensor = self.reduction(self.norm(tokens.repeat(1, 1, 4)))
        return merged


class Mlp(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class Block(nn.Module):
    """A Swin block with reconfigured attention.

    Args:
        dim: C.
        heads: of the attention.
        window: side of the largest window.
        shifted: whether it shifts its windows.
        drop_path: probability with which a sample skips the attention, and the MLP, in training.
        position_dim: width of the DET tokens' positions.
    """

    def __init__(
        self, dim: int, heads: int, window: int, *, shifted: bool, drop_path: float, position_dim: int
    ) -> None:
        super().__init__()
        self.shifted = shifted
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ReconfiguredAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.det_pos_linear = nn.Linear(position_dim, dim)

    def forward(
        self,
        patches: Tensor,
        tokens: Tensor | None,
        positions: Tensor,
        windows: Windows | None,
        view: PatchView | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Patches and DET tokens through the block.

        Args:
            patches: (B, H, W, C).
            tokens: (B, Q, C), or batch 1: then the new ones have batch 1 too, unless they depend on the sample. None
                where nobody asks for them.
            positions: (1, Q, D) of the DET tokens.
            windows: of the stage; None where nobody asks for the patches, which then come back as they are.
            view: what the DET tokens see of the patches; None where they see each other alone.
        """
        skips = (self._kept(patches), self._kept(patches))
        normed = self.norm1(patches)
        if tokens is not None:
            seen = None if view is None else (normed + view.positions.to(normed.dtype)).flatten(1, 2)
            attended = self._attended(tokens, positions, seen, view)
            tokens = self._joined(tokens, attended, skips)
        if windows is not None:
            patches = self._joined(patches, self.attn.patches(normed, windows, shifted=self.shifted), skips)
        return patches, tokens

    def tokens_alone(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """DET tokens (B, Q, C) through the block outside training, where they do not see the patches."""
        return self._joined(tokens, self._attended(tokens, positions, None, None), (None, None))

    def _attended(self, tokens: Tensor, positions: Tensor, seen: Tensor | None, view: PatchView | None) -> Tensor:
        placed = self.norm1(tokens) + self.det_pos_linear(positions)
        if seen is None or view is None:
            return self.attn.tokens(placed)
        return self.attn.tokens_and_patches(placed.expand(seen.shape[0], -1, -1), seen, view.padding)

    def _joined(self, before: Tensor, attended: Tensor, skips: tuple[Tensor | None, Tensor | None]) -> Tensor:
        """The two residual branches, each of which a sample may skip."""
        middle = before + _scaled(attended, skips[0])
        return middle + _scaled(self.mlp(self.norm2(middle)), skips[1])

    def _kept(self, patches: Tensor) -> Tensor | None:
        """Stochastic depth (arXiv 1603.09382): (B,) factors 0 or 1 / kept, of a sample's patches and DET tokens."""
        if not self.training or self.drop_path == 0:
            return None
        kept = 1 - self.drop_path
        return patches.new_empty(patches.shape[0]).bernoulli_(kept) / kept


class Stage(nn.Module):
    """The blocks of one resolution, and the merging that ends it."""

    def __init__(
        self, config: BackboneConfig, index: int, drop_path: list[float], out: int | None, position_dim: int
    ) -> None:
        super().__init__()
        dim = config.widths[index]
        self.config = config
        self.blocks = nn.ModuleList(
            Block(
                dim,
                config.heads[index],
                config.window,
                shifted=depth % 2 == 1,
                drop_path=rate,
                position_dim=position_dim,
            )
            for depth, rate in enumerate(drop_path)
        )
        self.downsample = PatchMerging(dim, out) if out else None

    def windows(self, patches: Tensor) -> Windows:
        """How the maps of these patches (B, H, W, C) are cut."""
        H, W = patches.shape[1:3]
        side = self.config.window
        fits = [self.config.shrink_window and length <= side for length in (H, W)]
        size = (H if fits[0] else side, W if fits[1] else side)
        padded = (H + -H % size[0], W + -W % size[1])
        shift = (0 if fits[0] else side // 2, 0 if fits[1] else side // 2)  # nothing to gain from one window
        shifts = len(self.blocks) > 1 and any(shift)
        return Windows(size, padded, shift, shift_mask(padded, size, shift, patches.device) if shifts else None)


class RamSwin(nn.Module):
    """Swin with the Reconfigured Attention Module.

    `map_widths` are the channels of its maps, `token_width` those of its DET tokens.

    Args:
        config: the Swin.
        queries: Q, the number of DET tokens.
        dim: D, width of their positions and of the merged last stage.
        cross_stages: the stages, from 0, in which they attend to patches.
        merge_last: whether the last stage is merged as well, to D channels, for a neck.
        recompute: the activations of a block are computed anew in the backward pass, which saves memory.
    """

    def __init__(
        self,
        config: BackboneConfig,
        *,
        queries: int,
        dim: int,
        cross_stages: tuple[int, ...],
        merge_last: bool,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.cross_stages = cross_stages
        self.recompute = recompute
        self.map_widths: tuple[int, ...] = (*config.widths[1:], *([dim] if merge_last else []))
        self.token_width = config.widths[-1]
        self.det_token = nn.Parameter(torch.empty(1, queries, config.width))
        self.det_pos_embed = nn.Parameter(torch.empty(1, queries, dim))
        self.patch_embed = PatchEmbedding(config.width)
        total = sum(config.depths)
        rates = [config.drop_path * block / max(total - 1, 1) for block in range(total)]
        last = len(config.depths) - 1
        self.layers = nn.ModuleList()
        for index, depth in enumerate(config.depths):
            before = sum(config.depths[:index])
            out = 2 * config.widths[index] if index < last else dim if merge_last else None
            self.layers.append(Stage(config, index, rates[before : before + depth], out, dim))
        self._initialise()
        if not merge_last:  # the last block's patches go nowhere, and nothing else uses their biases
            self._stages[-1].blocks[-1].get_parameter("attn.relative_position_bias_table").requires_grad = False

    def forward(self, images: Tensor, mask: Tensor, constant: Tensor | None = None) -> BackboneFeatures:
        """Patches and DET tokens of a batch.

        Args:
            images: (B, 3, H, W), normalised.
            mask: (B, H, W) bool, True = padding.
            constant: what `constant_tokens` gave, not to compute it again.
        """
        patches: Tensor = self.patch_embed(images)
        tokens = self.det_token if constant is None else constant
        maps = []
        for index, stage in enumerate(self._stages):
            done = constant is not None and index < self._first_cross
            view = self._view(mask, patches) if index in self.cross_stages else None
            patches, new = self._through(stage, patches, None if done else tokens, view)
            tokens = tokens if new is None else new
            if index > 0 and stage.downsample is not None:
                maps.append(patches.permute(0, 3, 1, 2))
            if stage.downsample is not None:
                patches = stage.downsample.patches(patches)
                if stage is not self._stages[-1] and not done:
                    tokens = stage.downsample.tokens(tokens)
        if self._stages[-1].downsample is not None:
            maps.append(patches.permute(0, 3, 1, 2))
        return BackboneFeatures(tuple(maps), tokens)

    def constant_tokens(self) -> Tensor:
        """The DET tokens as they enter the first stage with cross-attention, outside training: (1, Q, C of that stage).

        They do not depend on the image. Where no stage has cross-attention these are the final tokens.
        """
        tokens: Tensor = self.det_token
        for stage in self._stages[: self._first_cross]:
            for block in cast("list[Block]", list(stage.blocks)):
                tokens = block.tokens_alone(tokens, self.det_pos_embed)
            if stage.downsample is not None and stage is not self._stages[-1]:
                tokens = stage.downsample.tokens(tokens)
        return tokens

    @property
    def _stages(self) -> list[Stage]:
        return cast("list[Stage]", list(self.layers))

    @property
    def _first_cross(self) -> int:
        return min(self.cross_stages, default=len(self.layers))

    def _through(
        self, stage: Stage, patches: Tensor, tokens: Tensor | None, view: PatchView | None
    ) -> tuple[Tensor, Tensor | None]:
        windows = stage.windows(patches)
        for block in stage.blocks:
            wanted = stage.downsample is not None or block is not stage.blocks[-1]
            arguments = (patches, tokens, self.det_pos_embed, windows if wanted else None, view)
            if self.recompute and torch.is_grad_enabled():
                patches, tokens = checkpoint(block, *arguments, use_reentrant=False)
            else:
                patches, tokens = block(*arguments)
        return patches, tokens

    def _view(self, mask: Tensor, patches: Tensor) -> PatchView:
        _, H, W, C = patches.shape
        resized = resize_mask(mask, (H, W))
        return PatchView(sine_positions(resized, C), resized.flatten(1))

    def _initialise(self) -> None:
        """Swin's initialisation; the positions' projections keep torch's."""
        nn.init.trunc_normal_(self.det_token, std=0.02)
        nn.init.trunc_normal_(self.det_pos_embed, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.endswith("det_pos_linear"):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _scaled(branch: Tensor, factors: Tensor | None) -> Tensor:
    """`branch` (B, ...) times a factor per sample; batch 1 is expanded."""
    return branch if factors is None else branch * factors.reshape(-1, *[1] * (branch.ndim - 1)).to(branch.dtype)
