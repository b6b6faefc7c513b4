"""What a plain vision transformer (arXiv 2010.11929) consists of, and the sizes that timm has of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import timm
import torch
from timm.layers import LayerScale, Mlp, PatchEmbed, trunc_normal_
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.models.names import parse_architecture

Start = Literal["vit", "torch"]
_STD = 0.02


@dataclass(frozen=True)
class ViTShape:
    """A plain ViT: pre-norm blocks of attention and MLP, a class token, learnt positions.

    Args:
        width: C.
        depth: blocks.
        heads: of the attention; divides `width`.
        patch: side of a patch, in pixels.
        mlp: width of the MLP's hidden layer.
        qkv_bias: whether queries, keys and values have biases.
        norm_eps: of the layer norms.
        start: how layers start: `vit`: normal with deviation 0.02, cut off, and biases of 0; `torch`: as torch has it,
            which small widths need, whose outputs would vanish otherwise.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    mlp: int = 3072
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    start: Start = "vit"

    def norm(self) -> nn.LayerNorm:
        """A layer norm of its width."""
        return nn.LayerNorm(self.width, eps=self.norm_eps)

    def feed_forward(self) -> nn.Module:
        """The MLP of a block."""
        made: nn.Module = Mlp(self.width, self.mlp)
        return made


TINY = ViTShape(width=32, depth=2, heads=2, patch=6, mlp=128, start="torch")
"""For clips of 8 x 24 x 24: 16 patches a frame."""


def vit_shape(name: str) -> ViTShape:
    """The shape of the timm network `name`, with or without the tag of its weights.

    Raises:
        UserError: timm knows no such network, or it is no plain ViT: registers, layer scale, relative positions, ...
    """
    architecture = parse_architecture(name)
    if architecture.kind != "timm":
        raise UserError(f"{name!r} is no timm network", fix="name a ViT of timm, e.g. vit_small_patch16_224")
    with torch.device("meta"):
        network = timm.create_model(architecture.name)
    if strange := _strangeness(network):
        raise UserError(f"{architecture.name} {strange}", fix="take a plain ViT, e.g. vit_small_patch16_224")
    block: Any = cast("nn.Sequential", network.blocks)[0]
    return ViTShape(
        width=network.embed_dim,
        depth=len(network.blocks),
        heads=block.attn.num_heads,
        patch=network.patch_embed.proj.kernel_size[0],
        mlp=block.mlp.fc1.out_features,
        qkv_bias=block.attn.qkv.bias is not None,
        norm_eps=block.norm1.eps,
    )


def with_changes(shape: ViTShape, changes: dict[str, Any]) -> ViTShape:
    """`shape` with some of its fields changed; where `mlp` is not, it keeps its ratio to the width.

    Raises:
        UserError: the heads do not divide the width.
    """
    if "width" in changes and "mlp" not in changes:
        changes = {**changes, "mlp": changes["width"] * shape.mlp // shape.width}
    changed = replace(shape, **changes)
    if changed.width % changed.heads:
        raise UserError(f"{changed.heads} heads do not divide a width of {changed.width}", fix="change one of them")
    return changed


def patch_grid(side: int, patch: int) -> int:
    """How many patches a side has.

    Raises:
        UserError: they do not fill it.
    """
    if side % patch or side < patch:
        below, above = side // patch * patch, (side // patch + 1) * patch
        sides = f"{below} or {above}" if below else f"{above}"
        raise UserError(f"patches of {patch} pixels do not fill frames of {side}", fix=f"take a side of {sides}")
    return side // patch


def patch_embedding(shape: ViTShape, side: int) -> nn.Module:
    """Frames (B, 3, S, S) to patches (B, N, C), row by row."""
    made: nn.Module = PatchEmbed(img_size=side, patch_size=shape.patch, embed_dim=shape.width)
    return made


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Stochastic depth of each block, growing linearly from 0 to `last`."""
    return [last * block / max(depth - 1, 1) for block in range(depth)]


def start_layers(module: nn.Module, start: Start) -> None:
    """Draw the weights of all layers of `module` anew, from torch's global generator; see `ViTShape.start`."""
    if start == "torch":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            trunc_normal_(layer.weight, std=_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def learnt(*shape: int) -> nn.Parameter:
    """A learnt token or position, (1, ..., C), normal with deviation 0.02."""
    made = nn.Parameter(torch.zeros(1, *shape))
    trunc_normal_(made, std=_STD)
    return made


def nearest_times(positions: Tensor, frames: int) -> Tensor:
    """Temporal positions (1, T, C) for another number of frames: each takes the nearest one, (1, frames, C)."""
    if positions.shape[1] == frames:
        return positions
    return nn.functional.interpolate(positions.transpose(1, 2), size=frames, mode="nearest").transpose(1, 2)


def _strangeness(network: nn.Module) -> str:
    """What sets a network apart from a plain ViT; empty for a plain one."""
    if type(network) is not VisionTransformer or type(network.patch_embed) is not PatchEmbed:
        return "is no plain ViT"
    if network.cls_token is None or network.pos_embed is None or network.no_embed_class:
        return "has no class token with a position"
    if network.num_prefix_tokens != 1:
        return "has more tokens than the class and the patches"
    if not isinstance(network.norm_pre, nn.Identity) or not isinstance(network.norm, nn.LayerNorm):
        return "has its norms elsewhere"
    block: Any = cast("nn.Sequential", network.blocks)[0]
    if type(block) is not Block or type(block.mlp) is not Mlp or isinstance(block.ls1, LayerScale):
        return "has blocks of another kind"
    if not all(isinstance(part, nn.Identity) for part in (block.attn.q_norm, block.attn.norm, block.mlp.norm)):
        return "norms within its blocks"
    exact = isinstance(block.mlp.act, nn.GELU) and block.mlp.act.approximate == "none"
    return "" if exact else "has another activation"
