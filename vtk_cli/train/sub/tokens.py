"""Tokens taken out of plain vision transformers: what is masked costs nothing (arXiv 2306.11339, masking of ViTs).

Kept tokens keep their own position embedding, prefix tokens always stay, nothing is rescaled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import checkpoint_seq
from torch import Tensor, nn

from vtk_cli.train.sub.model import SubDraw, SubModel
from vtk_cli.train.sub.ratio import SubRatio
from vtk_kernels import keep_patches, keep_tokens


class KeptPatches(SubModel):
    """For timm's `VisionTransformer` with a plain patch embedding: only the kept patches are embedded at all.

    Args:
        network: the transformer.
        ratio: the share of patches to drop.
    """

    parts_name = "patches"

    def __init__(self, network: Any, ratio: SubRatio) -> None:
        super().__init__(ratio, network.patch_embed.num_patches, "token")

    def logits(self, network: Any, images: Tensor, draw: SubDraw) -> Tensor:
        """(B, C), from the prefix and the kept patches alone."""
        logits: Tensor = network.forward_head(self.features(network, images, draw))
        return logits

    def features(self, network: Any, images: Tensor, draw: SubDraw) -> Tensor:
        """(B, prefix + K, D): as the network's `forward_features`, of the kept patches alone."""
        tokens = network.norm_pre(self._embedded(network, images, draw.kept))
        tokens = checkpoint_seq(network.blocks, tokens) if network.grad_checkpointing else network.blocks(tokens)
        features: Tensor = network.norm(tokens)
        return features

    def _embedded(self, network: Any, images: Tensor, keep: Tensor) -> Tensor:
        prefix = prefix_tokens(network)
        tokens = embed_kept(network.patch_embed, images, keep)
        if network.pos_embed is None:
            return with_prefix(prefix, tokens)
        position = network.pos_embed[0]
        if not network.no_embed_class and prefix is not None:
            prefix = prefix + position[: prefix.shape[1]]
            position = position[prefix.shape[1] :]
        tokens = with_prefix(prefix, tokens + F.embedding(keep, position))
        dropped: Tensor = network.pos_drop(tokens)
        return dropped


class KeptTokens(SubModel):
    """For every network with timm's `patch_drop` slot, where tokens wait after their embedding.

    Args:
        network: the transformer.
        ratio: the share of tokens to drop.
        tokens: patch tokens of an image.
        indexed: the slot also returns the indices, with which the network gathers its rotary embedding (EVA).
    """

    parts_name = "patches"

    def __init__(self, network: Any, ratio: SubRatio, tokens: int, *, indexed: bool) -> None:
        super().__init__(ratio, tokens, "token")
        self._slot = _Slot(network.num_prefix_tokens, indexed=indexed)
        if network.patch_drop is None:
            # A place for a module, as it will be after the first draw: a compiled network need not be compiled anew.
            del network.patch_drop
            network.register_module("patch_drop", None)

    @contextmanager
    def applied(self, network: Any, draw: SubDraw) -> Iterator[None]:
        """Inside, the slot holds the draw; afterwards what was there before."""
        before = network.patch_drop
        # One module for all steps: a compiled network would take another for a reason to compile anew.
        self._slot.keep, network.patch_drop = draw.kept, self._slot
        try:
            yield
        finally:
            self._slot.keep, network.patch_drop = None, before


class _Slot(nn.Module):
    def __init__(self, prefix: int, *, indexed: bool) -> None:
        super().__init__()
        self._prefix, self._indexed = prefix, indexed
        self.keep: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.keep is None:
            raise ValueError("the slot is filled while the sub-model runs only")
        prefix = tokens[:, : self._prefix] if self._prefix else None
        kept = keep_tokens(tokens[:, self._prefix :], self.keep, None, prefix)
        return (kept, self.keep) if self._indexed else kept


def token_count(network: Any, image_size: int) -> int:
    """Patch tokens of an image (3, S, S), as the network's own patch embedding counts them."""
    embed = network.patch_embed if hasattr(network, "patch_embed") else network.embeds
    rows, columns = embed.dynamic_feat_size((image_size, image_size))
    return int(rows * columns)


def embed_kept(embed: Any, images: Tensor, keep: Tensor) -> Tensor:
    """(B, K, D): timm's `PatchEmbed` of the kept patches; a convolution that does not overlap is linear in each."""
    height, width = embed.patch_size
    # What is over at the edges belongs to no patch, as with the convolution: ViT-H/14 at 160 pixels.
    whole = images[..., : images.shape[-2] // height * height, : images.shape[-1] // width * width]
    rows = keep_patches(whole, keep, (height, width))
    tokens: Tensor = embed.norm(F.linear(rows, embed.proj.weight.flatten(1), embed.proj.bias))
    return tokens


def prefix_tokens(network: Any) -> Tensor | None:
    """(1, P, D): class, register and distillation token, as many as there are."""
    names = ("cls_token", "reg_token", "dist_token")
    tokens = [token for name in names if (token := getattr(network, name, None)) is not None]
    return torch.cat(tokens, dim=1) if tokens else None


def with_prefix(prefix: Tensor | None, tokens: Tensor) -> Tensor:
    """(B, P + K, D): `prefix` (1, P, D) before the tokens (B, K, D) of every sample."""
    return tokens if prefix is None else torch.cat((prefix.expand(len(tokens), -1, -1), tokens), dim=1)
