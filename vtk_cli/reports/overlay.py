"""An image with what was found on it: boxes, masks, and a label beside each.

Colours go by class, so that a class looks the same in every picture. Small images are enlarged by a whole factor first,
pixels kept square, so that labels can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from vtk_cli.reports.plain_names import printable
from vtk_cli.reports.plots import INK, PALETTE

LEAST_SIDE = 480
"""Images whose longer side is below half of it are enlarged until it no longer is."""
_TINT = 0.42
_WHITE_INK_BELOW = 0.3


@dataclass(frozen=True, eq=False)
class Mark:
    """Something found on an image.

    Args:
        label: written beside it; empty for nothing.
        group: its class; picks the colour.
        box: x1, y1, x2, y2 in pixels, or None.
        mask: bool (H, W) of the image, or None.
        point: x, y in pixels, or None.
    """

    label: str
    group: int
    box: tuple[float, float, float, float] | None = None
    mask: NDArray[np.bool_] | None = None
    point: tuple[float, float] | None = None


def draw_overlay(image: Image.Image, marks: Sequence[Mark], *, least_side: int = LEAST_SIDE) -> Image.Image:
    """The image with its marks; the first of them lies on top.

    Args:
        image: RGB.
        marks: the most certain first.
        least_side: small images are enlarged until twice their longer side would exceed it; 0 leaves the size.

    Returns:
        An RGB image, a whole number of times as large.
    """
    factor = max(1, least_side // max(image.size))
    drawn = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    shapes = [(mark, _enlarged(mark.mask, factor)) for mark in reversed(marks) if mark.mask is not None]
    if shapes:
        drawn = _tinted(drawn, shapes)
    draw = ImageDraw.Draw(drawn)
    width = _line_width(drawn.size)
    for mark in reversed(marks):
        if mark.box is not None:
            draw.rectangle(_pixels(mark.box, factor), outline=colour_of(mark.group), width=width)
        if mark.point is not None:
            _draw_point(draw, mark, factor, 2 * width)
    free = _Labels(draw, drawn.size, width)
    for mark in marks:  # the most certain first: it gets the best place
        if mark.label:
            free.write(mark.label, _anchor(mark, factor), colour_of(mark.group))
    return drawn


def colour_of(group: int) -> str:
    """The colour of a class, `#0072B2`; from the eleventh on the colours come again."""
    return PALETTE[group % len(PALETTE)]


def _line_width(size: tuple[int, int]) -> int:
    return max(2, round(max(size) / 360))


def _enlarged(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    return mask.repeat(factor, axis=0).repeat(factor, axis=1)


def _tinted(image: Image.Image, shapes: Sequence[tuple[Mark, NDArray[np.bool_]]]) -> Image.Image:
    """Masks as a tint with a rim of the full colour."""
    pixels = np.asarray(image, np.float32).copy()
    rim = _line_width(image.size)
    for mark, mask in shapes:
        colour = np.array(to_rgb(colour_of(mark.group)), np.float32) * 255
        pixels[mask] = (1 - _TINT) * pixels[mask] + _TINT * colour
        pixels[mask & ~binary_erosion(mask, iterations=rim)] = colour
    return Image.fromarray(pixels.round().astype(np.uint8))


def _pixels(box: tuple[float, float, float, float], factor: int) -> tuple[int, int, int, int]:
    """The outermost pixels of a box: its right and bottom edges lie after the last of them."""
    left, top, right, bottom = (round(value * factor) for value in box)
    return left, top, max(left, right - 1), max(top, bottom - 1)


def _draw_point(draw: ImageDraw.ImageDraw, mark: Mark, factor: int, radius: int) -> None:
    x, y = ((value + 0.5) * factor for value in mark.point or (0, 0))
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour_of(mark.group), outline="white", width=2)


def _anchor(mark: Mark, factor: int) -> tuple[int, int, int, int]:
    """The rectangle that a label is to lie at."""
    if mark.box is not None:
        return _pixels(mark.box, factor)
    if mark.mask is not None and mark.mask.any():
        rows, columns = np.nonzero(mark.mask.any(axis=1))[0], np.nonzero(mark.mask.any(axis=0))[0]
        return _pixels((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), factor)
    x, y = mark.point or (0, 0)
    return _pixels((x, y, x + 1, y + 1), factor)


class _Labels:
    """Writes labels where no other is: above the box, below it, or inside; above where all are taken."""

    def __init__(self, draw: ImageDraw.ImageDraw, size: tuple[int, int], width: int) -> None:
        self._draw, self._size, self._width = draw, size, width
        self._font = _font(int(np.clip(max(size) / 42, 12, 40)))
        self._taken: list[tuple[int, int, int, int]] = []

    def write(self, text: str, box: tuple[int, int, int, int], colour: str) -> None:
        """Write `text` on a plate of `colour` at the rectangle `box`."""
        text = printable(text)
        across = round(self._font.getlength(text)) + 8
        down = sum(self._font.getmetrics()) + 2
        left, top, right, bottom = box
        far = right - across + 1
        corners = [
            (left, top - down),
            (left, bottom + 1),
            (left, top),
            (far, top - down),
            (far, bottom + 1),
            (left, bottom - down),
        ]
        plates = [self._inside(corner, across, down) for corner in corners]
        plate = next((plate for plate in plates if not any(_meet(plate, other) for other in self._taken)), plates[0])
        self._taken.append(plate)
        self._draw.rectangle(plate, fill=colour)
        self._draw.text((plate[0] + 4, plate[1] + 1), text, fill=_ink_on(colour), font=self._font)

    def _inside(self, corner: tuple[int, int], across: int, down: int) -> tuple[int, int, int, int]:
        left = max(0, min(corner[0], self._size[0] - across))
        top = max(0, min(corner[1], self._size[1] - down))
        return left, top, left + across - 1, top + down - 1


def _meet(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _ink_on(colour: str) -> str:
    """White or ink, whichever contrasts more (relative luminance as in WCAG 2.2)."""
    channels: NDArray[Any] = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "white" if float(linear @ [0.2126, 0.7152, 0.0722]) < _WHITE_INK_BELOW else INK


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along."""
    return ImageFont.truetype(font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans")), size)
