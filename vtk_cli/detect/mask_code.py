"""An object's mask as a short vector: the low frequencies of the mask in its box (arXiv 2204.07962, Section 4.2).

The part of the mask in the box, resampled to 128 x 128 zeros and ones, M, is transformed by the orthonormal DCT-II,
C M C^T; the code is the first n of its coefficients along the anti-diagonals, in JPEG's zigzag order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from vtk_cli.detect.heads import wide

SIDE = 128
"""Pixels a side of the mask that is coded."""
_CHUNK = 16
"""Masks that are read in float at a time."""


def dct_matrix(side: int) -> Tensor:
    """C, float64 (side, side): C @ x is the orthonormal DCT-II of x, and C^T @ C = 1.

    C_kn = s_k cos(pi k (2 n + 1) / (2 side)) with s_0 = sqrt(1 / side), else sqrt(2 / side).
    """
    n = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi / (2 * side) * n[:, None] * (2 * n + 1)) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix


def zigzag(side: int, count: int) -> tuple[Tensor, Tensor]:
    """Rows and columns, (count,) each, of the first coefficients in zigzag order: (0,0), (0,1), (1,0), (2,0), (1,1) ...

    Args:
        side: of the coefficients' matrix.
        count: 1 to side^2.
    """
    cells: list[tuple[int, int]] = []
    for diagonal in range(2 * side - 1):
        rows = range(max(0, diagonal - side + 1), min(diagonal, side - 1) + 1)
        cells += [(row, diagonal - row) for row in (rows if diagonal % 2 else reversed(rows))]
        if len(cells) >= count:
            break
    row, column = torch.tensor(cells[:count]).unbind(1)
    return row, column


def crop_masks(masks: Tensor, boxes: Tensor, side: int = SIDE) -> Tensor:
    """The part of each mask in its box, resampled to `side` x `side`.

    Args:
        masks: (n, H, W) bool.
        boxes: (n, 4) xyxy in pixels of the masks.
        side: of the result.

    Returns:
        (n, side, side) bool: at least half of the cell is the object.
    """
    parts = [
        roi_align(part[:, None].float(), _regions(box.float()), side, aligned=True)[:, 0] >= 0.5
        for part, box in zip(_chunks(masks), _chunks(boxes), strict=True)
    ]
    return torch.cat([*parts, masks.new_zeros(0, side, side)])


def encode_masks(crops: Tensor, length: int) -> Tensor:
    """(n, length) codes of (n, side, side) masks, float32 at least."""
    side = crops.shape[-1]
    rows, columns = (index.to(crops.device) for index in zigzag(side, length))
    matrix = dct_matrix(side)[: _extent(length, side)].to(wide(crops))
    coefficients = matrix @ wide(crops) @ matrix.T
    return coefficients[:, rows, columns]


def decode_masks(codes: Tensor, side: int = SIDE) -> Tensor:
    """The masks (n, side, side) of codes (n, length), not yet rounded: about 1 on the object and 0 elsewhere."""
    codes = wide(codes)
    length = codes.shape[-1]
    extent = _extent(length, side)
    rows, columns = (index.to(codes.device) for index in zigzag(side, length))
    matrix = dct_matrix(side)[:extent].to(codes)
    coefficients = codes.new_zeros(len(codes), extent, extent)
    coefficients[:, rows, columns] = codes
    return matrix.T @ coefficients @ matrix


def above_half(decoded: Tensor) -> Tensor:
    """bool (n, side, side): above 0.5."""
    return decoded > 0.5


def above_midrange(decoded: Tensor) -> Tensor:
    """bool (n, side, side): above the mean of the map's least and greatest value, as the published evaluation has it.

    A mask that fills its box decodes to a constant, of which nothing is above.
    """
    return decoded > (decoded.amax((1, 2), keepdim=True) + decoded.amin((1, 2), keepdim=True)) / 2


def paste_masks(crops: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of boxes put where the boxes are.

    Args:
        crops: (n, side, side) bool.
        boxes: (n, 4) xyxy in pixels of the image; they may reach out of it.
        size: height and width of the image.

    Returns:
        (n, *size) bool: pixels whose centre, interpolated bilinearly between the cells, is at least half the object's.
    """
    height, width = size
    pasted = crops.new_zeros(len(crops), height, width)
    for crop, box, corners, into in zip(crops, wide(boxes), boxes.tolist(), pasted, strict=True):
        left, top, right, bottom = _pixels_around(corners, size)  # outside the box the interpolation is below half
        if left >= right or top >= bottom:
            continue
        xs, ys = (
            (torch.arange(first, last, device=box.device, dtype=box.dtype) + 0.5 - start) / (end - start) * 2 - 1
            for first, last, start, end in ((left, right, box[0], box[2]), (top, bottom, box[1], box[3]))
        )
        grid = torch.stack((xs.expand(len(ys), -1), ys[:, None].expand(-1, len(xs))), -1)
        sampled = F.grid_sample(crop[None, None].to(box.dtype), grid[None], align_corners=False)
        into[top:bottom, left:right] = sampled[0, 0] >= 0.5
    return pasted


def _chunks(objects: Tensor) -> list[Tensor]:
    return [objects[first : first + _CHUNK] for first in range(0, len(objects), _CHUNK)]


def _regions(boxes: Tensor) -> Tensor:
    """(n, 5): box i in image i."""
    return torch.cat((torch.arange(len(boxes), device=boxes.device)[:, None].to(boxes), boxes), 1)


def _pixels_around(box: list[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of an image (left, top, right, bottom, the latter two excluded) that a box touches."""
    left, top, right, bottom = box
    height, width = size
    if not (left < right and top < bottom):
        return 0, 0, 0, 0
    return (
        max(0, math.floor(max(left, -1))),
        max(0, math.floor(max(top, -1))),
        min(width, math.ceil(min(right, width))),
        min(height, math.ceil(min(bottom, height))),
    )


def _extent(length: int, side: int) -> int:
    """Rows and columns of coefficients that the first `length` lie in."""
    rows, columns = zigzag(side, length)
    return int(torch.maximum(rows, columns).amax()) + 1
