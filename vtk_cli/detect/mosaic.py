"""Several images in one: mosaic (four around a point) and mixup (two blended).

More objects an image make the one-to-one matching of a DETR denser (DEIM, arXiv 2412.04234, Section 3.1); mixup as in
arXiv 1902.04103 keeps the objects of both images whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vtk_cli.data.detection.scenes import Scene, cropped, joined, padded, resized
from vtk_cli.detect.transforms import GREY, fitted_size

LEAST_VISIBLE = 0.2
"""The share of its box that must be seen of an object that the edge of a quarter cuts."""
_LARGEST = 1.5
_CENTRE = (0.3, 0.7)
_ALIKE = 32.0


def mosaic(scenes: Sequence[Scene], side: int) -> Scene:
    """Four scenes around a random point of a square; called what the first is called.

    Each is scaled so that its longer side is 0.5 to 1.5 times the larger side of its quarter, laid with its inner
    corner on the point, and cut where it leaves the quarter. What is left over is grey.

    Args:
        scenes: four; of any size.
        side: of the square, in pixels.

    Raises:
        ValueError: there are not four.
    """
    if len(scenes) != 4:
        raise ValueError(f"a mosaic is of 4 scenes, not of {len(scenes)}")
    low, high = _CENTRE
    across, down = (round(side * (low + (high - low) * float(torch.rand(())))) for _ in range(2))
    corners = [(row, column) for row in (0, 1) for column in (0, 1)]
    placed = [
        _in_quarter(scene, (row, column), ((down, side - down)[row], (across, side - across)[column]), side)
        for scene, (row, column) in zip(scenes, corners, strict=True)
    ]
    canvas = torch.empty_like(placed[0].image)
    for scene, (row, column) in zip(placed, corners, strict=True):
        rows, columns = (slice(0, down), slice(down, side))[row], (slice(0, across), slice(across, side))[column]
        canvas[:, rows, columns] = scene.image[:, rows, columns]
    return joined(placed, canvas)


def mixup(first: Scene, second: Scene) -> Scene:
    """Two scenes blended, about half of each (a share from Beta(32, 32)), with the objects of both.

    Args:
        first: whose name and size the result has.
        second: stretched to the size of the first.
    """
    share = float(torch.distributions.Beta(_ALIKE, _ALIKE).sample())
    other = resized(second, *first.size)
    blended = first.image.float() * share + other.image.float() * (1 - share)
    return joined([first, other], blended.round().to(torch.uint8))


def _in_quarter(scene: Scene, quarter: tuple[int, int], extent: tuple[int, int], side: int) -> Scene:
    """A scene on the whole canvas, of which only its quarter (row, column) of `extent` (height, width) is filled."""
    (row, column), (height, width) = quarter, extent
    largest = max(height, width)
    fitted = fitted_size(*scene.size, max(1, round(largest * (0.5 + (_LARGEST - 0.5) * float(torch.rand(()))))))
    scaled = resized(scene, *fitted)
    seen = (min(fitted[0], height), min(fitted[1], width))
    top = fitted[0] - seen[0] if row == 0 else 0  # the corner at the point stays, the far one is cut
    left = fitted[1] - seen[1] if column == 0 else 0
    part = cropped(scaled, top, left, *seen, least_visible=LEAST_VISIBLE)
    above = height - seen[0] if row == 0 else side - height
    before = width - seen[1] if column == 0 else side - width
    return padded(part, (before, above, side - before - seen[1], side - above - seen[0]), GREY)
