"""A learned token in the place of masked ones, for networks that need their whole grid (arXiv 2306.11339, Swin)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vtk_cli.engine.seeds import preserved_rng
from vtk_cli.errors import UserError
from vtk_cli.train.sub.model import SubDraw, SubModel
from vtk_cli.train.sub.pixels import blocks_along
from vtk_cli.train.sub.ratio import SubRatio


@dataclass(frozen=True)
class TokenGrid:
    """How a network's patch embedding hands out its tokens.

    Args:
        layout: `NHWC`, `NCHW` or `NLC`.
        side: tokens along a side of the image.
        channels: of a token.
    """

    layout: Literal["NHWC", "NCHW", "NLC"]
    side: int
    channels: int


class MaskToken(SubModel):
    """Blocks of tokens are replaced by one learned token, right after the patch embedding and its norm.

    Everything after it works on all tokens: window attention and the final pooling see the masked ones too.

    Args:
        network: its patch embedding gets a forward hook, idle without a draw.
        ratio: the share of blocks to mask.
        image_size: side of the images.
        block: side of a block, in pixels.
        grid: of the network's tokens.

    Raises:
        UserError: the block does not divide the image, or is no whole number of tokens.
    """

    parts_name = "blocks"

    def __init__(self, network: Any, ratio: SubRatio, image_size: int, block: int, grid: TokenGrid) -> None:
        along = blocks_along(image_size, block)
        super().__init__(ratio, along**2, "mask-token")
        if grid.side % along:
            what = f"a block of {block} pixels is no whole number of the {grid.side} tokens along {image_size} pixels"
            raise UserError(what, "--sub-block", f"choose a multiple of {image_size // grid.side}")
        self._along, self._grid = along, grid
        self._keep: Tensor | None = None
        # Drawn aside, so that the rest of the training does not depend on whether there is a sub-model.
        with preserved_rng():
            self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, grid.channels), std=0.02))
        # A method, so that a copy of network and sub-model together (averaged weights) is hooked to its own token.
        network.patch_embed.register_forward_hook(self._blend)

    @contextmanager
    def applied(self, network: nn.Module, draw: SubDraw) -> Iterator[None]:  # noqa: ARG002
        """Inside, the patch embedding's output is masked."""
        self._keep = draw.kept
        try:
            yield
        finally:
            self._keep = None

    def no_weight_decay(self) -> set[str]:
        """As timm's networks say it."""
        return {"mask_token"}

    def _blend(self, module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG002
        """The embedding's output, its masked tokens replaced; some networks' comes with the size of the grid."""
        if self._keep is None:
            return output
        if isinstance(output, tuple):
            return self._masked(output[0], self._keep), *output[1:]
        return self._masked(output, self._keep)

    def _masked(self, tokens: Tensor, keep: Tensor) -> Tensor:
        kept = kept_tokens(keep, self._along, self._grid.side)
        token = self.mask_token.to(tokens.dtype)
        if self._grid.layout == "NCHW":
            return torch.where(kept[:, None], tokens, token[:, :, :, None].transpose(1, 2))
        if self._grid.layout == "NLC":
            return torch.where(kept.flatten(1)[:, :, None], tokens, token)
        return torch.where(kept[..., None], tokens, token[:, None])


def kept_tokens(keep: Tensor, along: int, side: int) -> Tensor:
    """(B, side, side) bool: which tokens are in a kept block.

    Args:
        keep: (B, K) int64, of the along x along blocks.
        along: blocks along a side.
        side: tokens along a side, a multiple of `along`.
    """
    blocks = torch.zeros(len(keep), along**2, dtype=torch.bool, device=keep.device).scatter(1, keep, value=True)
    cell = side // along
    return blocks.view(-1, along, along).repeat_interleave(cell, 1).repeat_interleave(cell, 2)


def token_grid(network: Any, image_size: int) -> TokenGrid | None:
    """How the network's `patch_embed` hands out tokens; None where there is none, or no square grid of them."""
    embed = getattr(network, "patch_embed", None)
    if not isinstance(embed, nn.Module):
        return None
    training = embed.training
    device = next((parameter.device for parameter in embed.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            output = embed.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
    finally:
        embed.train(training)
    tokens = output[0] if isinstance(output, tuple) else output
    shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else ()
    if len(shape) == 4 and shape[1] == shape[2]:
        return TokenGrid("NHWC", shape[1], shape[3])
    if len(shape) == 4 and shape[2] == shape[3]:
        return TokenGrid("NCHW", shape[2], shape[1])
    side = round(shape[1] ** 0.5) if len(shape) == 3 else 0
    return TokenGrid("NLC", side, shape[2]) if side and side * side == shape[1] else None
