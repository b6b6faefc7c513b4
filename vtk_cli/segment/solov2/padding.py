"""Images of several sizes as one batch, and how large an image is resized (arXiv 2003.10152, Section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def resized_size(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """Height and width of an image resized, with its shape kept, to a short side of `short`.

    Where its long side would be above `long` pixels, that becomes `long` instead.
    """
    factor = min(short / min(height, width), long / max(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def padded_size(sizes: Sequence[tuple[int, int]], multiple: int) -> tuple[int, int]:
    """The smallest height and width, multiples of `multiple`, that hold images of all these heights and widths."""
    height, width = (-(-max(sides) // multiple) * multiple for sides in zip(*sizes, strict=True))
    return height, width


def pad_images(images: Sequence[Tensor], canvas: tuple[int, int]) -> Tensor:
    """Normalised images (3, H_i, W_i) as one batch (B, 3, *canvas), zeros at the right and the bottom."""
    batch = images[0].new_zeros((len(images), images[0].shape[0], *canvas))
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch
