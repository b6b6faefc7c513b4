"""Which way of dropping suits a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from timm.layers import PatchEmbed
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.models.anatomy import is_hierarchical
from vtk_cli.train.sub.beit import KeptBeitPatches
from vtk_cli.train.sub.dropout import Dropouts
from vtk_cli.train.sub.droppath import DropPaths
from vtk_cli.train.sub.mask_token import MaskToken, token_grid
from vtk_cli.train.sub.model import SubModel
from vtk_cli.train.sub.pixels import MaskedBlocks, default_block
from vtk_cli.train.sub.ratio import SubRatio, kept_count
from vtk_cli.train.sub.tokens import KeptPatches, KeptTokens, token_count

Method = Literal["mask", "dropout", "droppath"]
MaskKind = Literal["auto", "token", "mask-token", "pixel"]

_KIND_FLAG = "--sub-mask-kind"


def choose_sub(
    network: nn.Module,
    method: Method,
    kind: MaskKind,
    ratio: SubRatio | float,
    image_size: int,
    *,
    block: int | None = None,
    console: Console,
) -> SubModel:
    """The sub-model of `network`; may replace identities in it that stand for a drop-path of rate 0.

    Args:
        network: a classifier; gradient checkpointing, if wanted, is already on.
        method: what is dropped: parts of the image, units, or whole residual branches.
        kind: how parts of the image are masked. `token`: tokens are taken out (plain vision transformers);
            `mask-token`: a learned token stands for them (Swin and other networks that need the whole grid);
            `pixel`: blocks of the image become the mean colour. `auto`: the first that the network allows.
        ratio: the share that is dropped.
        image_size: side of the training images.
        block: side of a block in pixels, for `mask-token` and `pixel`; None: see `default_block`.
        console: warned where the ratio would leave nothing.

    Raises:
        UserError: the network has nothing to drop in this way, or the block does not divide the image.
    """
    ratio = ratio if isinstance(ratio, SubRatio) else SubRatio(ratio, ratio)
    if method != "mask":
        _refuse_checkpointing(network, method)
        return Dropouts(network, ratio) if method == "dropout" else DropPaths(network, ratio)
    sub = _BY_KIND[_auto_kind(network, image_size) if kind == "auto" else kind](network, ratio, image_size, block)
    largest = max(ratio.start, ratio.end)
    if sub.parts * (1 - largest) + 1e-6 < 1:
        what = f"--sub-ratio {largest:g} would leave none of the {sub.parts} {sub.parts_name} of an image"
        console.warn(f"{what}; {kept_count(sub.parts, largest)} is kept")
    return sub


def _auto_kind(network: nn.Module, image_size: int) -> MaskKind:
    if isinstance(network, (VisionTransformer, Eva, NaFlexVit)) or _is_plain_beit(network):
        return "token"
    if is_hierarchical(network) and token_grid(network, image_size) is not None:
        return "mask-token"
    return "pixel"


def _token(network: nn.Module, ratio: SubRatio, image_size: int, block: int | None) -> SubModel:  # noqa: ARG001
    if _is_plain_beit(network):
        return KeptBeitPatches(network, ratio)
    if not isinstance(network, (VisionTransformer, Eva, NaFlexVit)):
        fix = "use mask-token, pixel or auto"
        raise UserError(f"tokens cannot be taken out of a {type(network).__name__}", f"{_KIND_FLAG} token", fix)
    if type(network) in {VisionTransformer, VisionTransformerDistilled} and _is_plain(network):
        return KeptPatches(network, ratio)
    return KeptTokens(network, ratio, token_count(network, image_size), indexed=isinstance(network, (Eva, NaFlexVit)))


def _mask_token(network: nn.Module, ratio: SubRatio, image_size: int, block: int | None) -> SubModel:
    grid = token_grid(network, image_size)
    if grid is None:
        fix = "use pixel or auto"
        raise UserError(f"a {type(network).__name__} has no grid of tokens", f"{_KIND_FLAG} mask-token", fix)
    return MaskToken(network, ratio, image_size, block or default_block(image_size, grid.side), grid)


def _pixel(network: nn.Module, ratio: SubRatio, image_size: int, block: int | None) -> SubModel:  # noqa: ARG001
    return MaskedBlocks(ratio, image_size, block or default_block(image_size))


_BY_KIND: dict[str, Callable[[nn.Module, SubRatio, int, int | None], SubModel]] = {
    "token": _token,
    "mask-token": _mask_token,
    "pixel": _pixel,
}


def _is_plain(network: nn.Module) -> bool:
    """Whether the patch embedding is a linear map of each patch alone, at one size of the image."""
    embed: Any = network.patch_embed
    if type(embed) is not PatchEmbed or getattr(network, "dynamic_img_size", False):
        return False
    return bool(embed.strict_img_size and embed.img_size and embed.flatten and not embed.dynamic_img_pad)


def _is_plain_beit(network: nn.Module) -> bool:
    return isinstance(network, Beit) and _is_plain(network)


def _refuse_checkpointing(network: nn.Module, method: Method) -> None:
    """A recomputed block would find the rates of the main forward, for they are restored when the sub-model's ends."""
    if any(getattr(part, "grad_checkpointing", False) for part in network.modules()):
        what = f"--sub {method} cannot go with gradient checkpointing"
        raise UserError(what, "--grad-checkpointing", "leave it out, or use --sub mask")
