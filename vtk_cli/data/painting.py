"""Digits painted on photo crops: what the composed embedded datasets share.

The backgrounds are crops of the two photos that come with scikit-learn (china.jpg, flower.jpg; 427x640 pixels). They
are shared between the splits; the digits never are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vtk_cli.data.digits import upscale

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Half = Literal["whole", "left", "right"]

COLOURS = 16
"""How many random colours are tried for a digit."""
CONTRAST = 120.0
"""How far a colour is from what is behind it to stand out: Euclidean, in RGB levels of 255."""
FAINT, SOLID = 0.2, 0.6
"""Ink below FAINT is transparent, above SOLID opaque, linear between: the mask is where the digit outweighs."""


@dataclass(frozen=True, eq=False)
class Glyph:
    """A digit ready to paint: its opacity (h, w) in 0..1, cut tight to where it is not transparent."""

    opacity: Floats

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Where the digit outweighs the background: bool (h, w)."""
        return self.opacity > 0.5


def load_photos() -> tuple[Bytes, Bytes]:
    """The two photos: uint8 (427, 640, 3) each, RGB."""
    from sklearn.datasets import load_sample_images  # takes a second

    first, second = load_sample_images().images
    return np.asarray(first, np.uint8), np.asarray(second, np.uint8)


def photo_crop(
    photo: Bytes, side: int, rng: np.random.Generator, *, smallest: int, largest: int, half: Half = "whole"
) -> Bytes:
    """A random square of `photo`, `smallest` to `largest` pixels a side, resized (antialiased) to (side, side, 3).

    `half` keeps the square within the left or right half of the photo.
    """
    height, width = photo.shape[:2]
    start, stop = {"whole": (0, width), "left": (0, width // 2), "right": (width // 2, width)}[half]
    size = int(rng.integers(smallest, min(largest, stop - start, height) + 1))
    x = int(rng.integers(start, stop - size + 1))
    y = int(rng.integers(0, height - size + 1))
    square = Image.fromarray(photo[y : y + size, x : x + size])
    return np.asarray(square.resize((side, side), Image.Resampling.BILINEAR))


def draw_glyph(ink: Floats, side: int) -> Glyph:
    """Scale a digit's ink (8, 8) in 0..1 to `side` pixels, with soft edges also where the source cuts it off."""
    cell = side / ink.shape[0]
    scaled = upscale(np.pad(ink, 1), round(side + 2 * cell))
    opacity = np.clip((scaled - FAINT) / (SOLID - FAINT), 0, 1)
    rows, columns = np.nonzero(opacity.max(1))[0], np.nonzero(opacity.max(0))[0]
    return Glyph(opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def contrasting_colour(background: Bytes, rng: np.random.Generator) -> Bytes:
    """A random colour (3,) at least `CONTRAST` from nine tenths of the pixels of `background` (..., 3).

    The first of `COLOURS` random ones that is; where none is, the one that comes nearest to it.
    """
    candidates = rng.integers(0, 256, (COLOURS, 3))
    pixels = background.reshape(1, -1, 3).astype(np.float64)
    distance = np.sqrt(((pixels - candidates[:, None]) ** 2).sum(-1))
    stands_out = np.sort(distance, axis=1)[:, distance.shape[1] // 10]
    return np.asarray(candidates[np.minimum(stands_out, CONTRAST).argmax()], np.uint8)


def paint(canvas: Bytes, glyph: Glyph, colour: Bytes, x: int, y: int) -> None:
    """Blend `glyph` in `colour` into `canvas` (H, W, 3), in place, its top left corner at column x, row y."""
    height, width = glyph.opacity.shape
    region = canvas[y : y + height, x : x + width]
    opacity = glyph.opacity[..., None]
    region[:] = np.rint(region * (1 - opacity) + colour * opacity).astype(np.uint8)
