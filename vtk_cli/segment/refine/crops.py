"""What the MaskRefineNet sees of an object: where it is cropped, and the channels of the input.

Coordinates of images: pixels, (0, 0) the centre of the top left one. Coordinates of crops: the same in the S x S pixels
that a crop is resized to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SIDE = 2


@dataclass(frozen=True)
class Window:
    """A part of an image: the columns left <= x < right and the rows top <= y < bottom."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def of(self, image: Tensor) -> Tensor:
        """The part of (..., H, W), a view."""
        return image[..., self.top : self.bottom, self.left : self.right]

    def to_crop(self, x: float, y: float, side: int) -> tuple[float, float]:
        """Where a point of the image lies in the crop, resized to `side` x `side`."""
        height, width = self.size
        return (x - self.left + 0.5) * side / width - 0.5, (y - self.top + 0.5) * side / height - 0.5


def crop_window(mask: Tensor, click: tuple[float, float], scale: float) -> Window:
    """Where an object is cropped: the tight box of its rough mask, scaled about its centre, with the click in it.

    A side that the click lies beyond is moved to half the scaled box's length beyond the click. The window is clipped
    to the image, of whole pixels, and at least `LEAST_SIDE` of them a side where the image has as many.

    Args:
        mask: bool (H, W), not empty.
        click: x, y.
        scale: at least 1.

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError("an empty mask has no box to crop")
    columns, rows = mask.any(0).nonzero()[:, 0], mask.any(1).nonzero()[:, 0]
    left, right = _extent(int(columns[0]), int(columns[-1]), click[0], scale, mask.shape[1])
    top, bottom = _extent(int(rows[0]), int(rows[-1]), click[1], scale, mask.shape[0])
    return Window(left, top, right, bottom)


def click_heat(clicks: Tensor, present: Tensor, side: int, sigma: float, reach: int) -> Tensor:
    """Gaussians with peak 1 at the pixel of each click, 0 beyond `reach` pixels along either axis.

    Args:
        clicks: (n, 2) x, y in pixels of the crops; the nearest pixel of the crop counts.
        present: bool (n,); a map without a click is 0.
        side: S.
        sigma: in pixels.
        reach: in pixels.

    Returns:
        float32 (n, S, S).
    """
    centres = clicks.round().clamp(0, side - 1)
    offsets = torch.arange(side, device=clicks.device) - centres[..., None]  # (n, 2, S)
    bells = torch.exp(-(offsets**2) / (2 * sigma**2)) * (offsets.abs() <= reach)
    heat = bells[:, 1, :, None] * bells[:, 0, None, :] * present[:, None, None]
    return heat.float()


def refine_input(images: Tensor, heat: Tensor, rough: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The network's input.

    Args:
        images: float (n, 3, S, S), normalised crops.
        heat: float (n, S, S), of `click_heat`.
        rough: bool (n, S, S).
        labels: int64 (n,), in [0, C); the heat goes to the channel of the label + 1, of C + 1.
        classes: C.

    Returns:
        (n, C + 5, S, S): the image, the heat, the rough mask.
    """
    n, _, S, _ = images.shape
    maps = images.new_zeros(n, classes + 1, S, S)
    maps[torch.arange(n, device=labels.device), labels + 1] = heat.to(images.dtype)
    return torch.cat([images, maps, rough[:, None].to(images.dtype)], dim=1)


def _extent(first: int, last: int, click: float, scale: float, length: int) -> tuple[int, int]:
    """The half-open range of pixels of one axis; `first` and `last` are those of the mask."""
    centre, half = (first + last) / 2, scale * (last - first + 1) / 2
    low, high = centre - half, centre + half
    if click < low:
        low = click - half
    if click > high:
        high = click + half
    start, end = max(0, math.floor(low + 0.5)), min(length, math.ceil(high + 0.5))
    if end - start < LEAST_SIDE:  # a line of one pixel
        end = min(length, end + 1)
        start = max(0, end - LEAST_SIDE)
    return start, end
