"""Positions and masks of the attention in the backbone: windows, their shifts and biases, and the sine encoding.

Windows and shifts as in Swin (arXiv 2103.14030, Section 3.2); the sine encoding is DETR's (arXiv 2005.12872), with
which ViDT places patches for the DET tokens (arXiv 2110.03921, Section 3.1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

HIDDEN = -100.0
"""Added to the logit of a key that must not be seen."""


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The padding mask of a map, by nearest neighbours.

    Args:
        mask: (B, H, W) bool, True = padding.
        size: height and width of the map.

    Returns:
        (B, *size) bool.
    """
    return F.interpolate(mask[:, None].byte(), size=size)[:, 0].bool()


def sine_positions(mask: Tensor, width: int) -> Tensor:
    """The sine encoding of the unpadded cells of a map; rows and columns run from 0 to 2 pi over them.

    With n = width / 2 and f_k = 10000^(2 floor(k / 2) / n), feature k of an angle a is sin(a / f_k) for even k and
    cos(a / f_k) for odd k; the features of the row come first, those of the column after them.

    Args:
        mask: (B, H, W) bool, True = padding, at the right and the bottom.
        width: of the encoding, a multiple of 4.

    Returns:
        (B, H, W, width) float32.
    """
    n = width // 2
    seen = ~mask
    k = torch.arange(n, device=mask.device, dtype=torch.float32)
    frequencies = 10000 ** (2 * (k // 2) / n)
    halves = []
    for axis in (1, 2):
        count = seen.cumsum(axis, dtype=torch.float32)
        angle = count / (count.narrow(axis, -1, 1) + 1e-6) * (2 * math.pi)
        phase = angle[..., None] / frequencies
        halves.append(torch.stack((phase[..., 0::2].sin(), phase[..., 1::2].cos()), dim=-1).flatten(-2))
    return torch.cat(halves, dim=-1)


def pad_bottom_right(maps: Tensor, down: int, right: int) -> Tensor:
    """Maps (B, H, W, C) with so many rows and columns of zeros more; those that need none are not copied."""
    return F.pad(maps, (0, 0, 0, right, 0, down)) if down or right else maps


def windows_of(maps: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut maps (B, H, W, C) into windows, (B, number of windows, cells of a window, C), row by row.

    H and W are multiples of the window's sides.
    """
    B, H, W, C = maps.shape
    h, w = window
    cut = maps.reshape(B, H // h, h, W // w, w, C).transpose(2, 3)
    return cut.reshape(B, (H // h) * (W // w), h * w, C)


def relative_index(window: tuple[int, int], side: int, device: torch.device | str = "cpu") -> Tensor:
    """Where the bias of a pair of cells stands in a table made for windows of `side` x `side`.

    Args:
        window: height and width of a window, at most `side`.
        side: w; the table has (2w - 1)^2 rows, and the pair at distance (dy, dx) row (dy + w - 1)(2w - 1) + dx + w - 1.
        device: where the index is made.

    Returns:
        (h * w, h * w) int64: of queries (rows) and keys (columns).
    """
    sides = (torch.arange(length, device=device) for length in window)
    rows, columns = torch.meshgrid(*sides, indexing="ij")
    y, x = rows.flatten(), columns.flatten()
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (dy + side - 1) * (2 * side - 1) + dx + side - 1


def shift_mask(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device | str = "cpu"
) -> Tensor:
    """What hides cells from one another that only a cyclic shift brought into one window.

    Args:
        size: height and width of the padded map, multiples of the window's.
        window: height and width of a window.
        shift: by how many cells the map was rolled up and left.
        device: where the mask is made.

    Returns:
        (number of windows, cells, cells): 0 within a region of the map, -100 between regions.
    """
    regions = []
    for length, side, rolled in zip(size, window, shift, strict=True):
        at = torch.arange(length, device=device)
        regions.append((at >= length - side).long() + (at >= length - rolled).long() if rolled else at * 0)
    region = regions[0][:, None] * 3 + regions[1]
    cells = windows_of(region[None, ..., None], window)[0, ..., 0]
    return (cells[:, :, None] != cells[:, None, :]).float() * HIDDEN
