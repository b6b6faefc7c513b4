"""Blocks of the image set to the mean colour: masking for convolutional networks (arXiv 2306.11339)."""

from __future__ import annotations

from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.train.sub.model import SubDraw, SubModel
from vtk_cli.train.sub.ratio import SubRatio
from vtk_kernels import mask_patches


class MaskedBlocks(SubModel):
    """For any network: outside the kept blocks a normalised image is 0, the mean colour of the data set.

    Args:
        ratio: the share of blocks to mask.
        image_size: side of the images.
        block: side of a block, in pixels.

    Raises:
        UserError: the block does not divide the image.
    """

    parts_name = "blocks"

    def __init__(self, ratio: SubRatio, image_size: int, block: int) -> None:
        super().__init__(ratio, blocks_along(image_size, block) ** 2, "pixel")
        self._block = block

    def masked(self, images: Tensor, draw: SubDraw) -> Tensor:
        """The images with their other blocks at 0."""
        return mask_patches(images, draw.kept, self._block)


def default_block(image_size: int, tokens: int | None = None) -> int:
    """Side of a block in pixels: 32, or an eighth of a small image, or the nearest that fits.

    Args:
        image_size: side of the images, in pixels.
        tokens: along that side, of which a block is to hold whole ones; None where it need not.

    Returns:
        A divisor of `image_size`; where none is within a factor of 2, what was wished for, which does not fit.
    """
    wished = 32 if image_size >= 160 else max(1, image_size // 8)
    fitting = [
        block
        for block in range((wished + 1) // 2, 2 * wished + 1)
        if image_size % block == 0 and (tokens is None or tokens % (image_size // block) == 0)
    ]
    return min(fitting, key=lambda block: abs(block - wished), default=wished)


def blocks_along(image_size: int, block: int) -> int:
    """Blocks along a side.

    Raises:
        UserError: the block does not divide the image.
    """
    if block < 1 or image_size % block:
        what = f"images of {image_size} x {image_size} pixels cannot be cut into blocks of {block}"
        raise UserError(what, "--sub-block", f"choose a divisor of {image_size}, or another --img-size")
    return image_size // block
