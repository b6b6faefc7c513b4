"""Tokens taken out of BEiT, whose attention has a bias for every pair of places (arXiv 2106.08254, 2306.11339).

timm's blocks look their bias up for all tokens, so the lookup is made here, for the tokens each sample keeps.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import checkpoint
from torch import Tensor

from vtk_cli.train.sub.model import SubDraw
from vtk_cli.train.sub.tokens import KeptPatches, embed_kept, with_prefix


class KeptBeitPatches(KeptPatches):
    """For timm's `Beit`: only the kept patches are embedded, and the relative position bias is gathered.

    Args:
        network: the transformer.
        ratio: the share of patches to drop.
    """

    def features(self, network: Any, images: Tensor, draw: SubDraw) -> Tensor:
        """(B, 1 + K, D): as the network's `forward_features`, of the kept patches alone."""
        keep = draw.kept
        prefix, tokens = network.cls_token, embed_kept(network.patch_embed, images, keep)
        if network.pos_embed is not None:
            prefix = prefix + network.pos_embed[:, :1]
            tokens = tokens + F.embedding(keep, network.pos_embed[0, 1:])
        tokens = network.pos_drop(with_prefix(prefix, tokens))
        places = F.pad(keep + 1, (1, 0))  # the class token is place 0
        shared = _bias(network.rel_pos_bias, places) if network.rel_pos_bias is not None else None
        for block in network.blocks:
            run = partial(_block, block)
            tokens = (
                checkpoint(run, tokens, places, shared) if network.grad_checkpointing else run(tokens, places, shared)
            )
        features: Tensor = network.norm(tokens)
        return features


def _block(block: Any, tokens: Tensor, places: Tensor, shared: Tensor | None) -> Tensor:
    attended = _attention(block.attn, block.norm1(tokens), places, shared)
    tokens = tokens + block.drop_path1(attended if block.gamma_1 is None else block.gamma_1 * attended)
    mixed = block.mlp(block.norm2(tokens))
    result: Tensor = tokens + block.drop_path2(mixed if block.gamma_2 is None else block.gamma_2 * mixed)
    return result


def _attention(attention: Any, tokens: Tensor, places: Tensor, shared: Tensor | None) -> Tensor:
    """(B, T, D): timm's attention over tokens that stand at `places` (B, T)."""
    own = attention.q_bias
    bias = None if own is None else torch.cat((own, attention.k_bias, attention.v_bias))
    rows = F.linear(tokens, attention.qkv.weight, bias)
    query, key, value = rows.reshape(*tokens.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    if attention.relative_position_bias_table is not None:
        local = _bias(attention, places)
        shared = local if shared is None else local + shared
    dropout = attention.attn_drop.p if attention.training else 0.0
    mask = None if shared is None else shared.to(query.dtype)
    heads = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    projected: Tensor = attention.proj_drop(attention.proj(heads.transpose(1, 2).flatten(2)))
    return projected


def _bias(owner: Any, places: Tensor) -> Tensor:
    """(B, heads, T, T): the bias of each pair of places of each sample."""
    pairs = owner.relative_position_index[places[:, :, None], places[:, None, :]]
    return F.embedding(pairs, owner.relative_position_bias_table).permute(0, 3, 1, 2)
