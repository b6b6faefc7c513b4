"""Where a person would click on an object: derived from its mask, or from its box.

The published experiments take the centroid of the mask (arXiv 2303.15062, Section 4), which may lie outside a concave
object; real clicks lie on it. Points are x, y in pixels, (0, 0) the centre of the top left one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from vtk_cli.data.detection.outlines import Bools, Floats

Mode = Literal["centroid", "random", "inside"]
MODES: tuple[Mode, ...] = ("centroid", "random", "inside")
_UNSIGNED = 2**64 - 1


def click_of_mask(mask: Bools, mode: Mode, *, seed: int = 0, identity: int = 0) -> Floats:
    """A click on an object.

    Args:
        mask: bool (H, W), not empty.
        mode: `centroid`: the mean of the pixels. `inside`: the pixel of the mask nearest to the centroid, of equally
            near ones the first by row and column. `random`: a pixel of the mask, each as likely as any other.
        seed: of `random`.
        identity: of the annotation: with the seed it decides the draw, whatever else is drawn.

    Returns:
        float64 (2,): x, y.

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise ValueError("an empty mask has no click")
    if mode == "random":
        # a third word, so that images and annotations with the same numbers do not draw alike elsewhere
        drawn = np.random.default_rng([seed & _UNSIGNED, identity & _UNSIGNED, 0x636C6B]).integers(len(rows))
        return np.array([columns[drawn], rows[drawn]], np.float64)
    centre = np.array([columns.mean(), rows.mean()], np.float64)
    if mode == "centroid":
        return centre
    nearest = int(np.argmin((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2))
    return np.array([columns[nearest], rows[nearest]], np.float64)


def click_of_box(box: Floats) -> Floats:
    """The centre of a box, float64 (4,) x1, y1, x2, y2 with the corners of pixels for coordinates: float64 (2,)."""
    return (box[:2] + box[2:]) / 2 - 0.5
