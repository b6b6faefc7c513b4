"""Which cells are to predict which objects (arXiv 2003.10152, Section 3; arXiv 2303.15062).

Cells cover the padded canvas; a place v on a side of V pixels, counted from the middle of the first pixel, is in cell
floor(v S / V), computed exactly where v is a whole number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.segment.solov2.configurations import LevelConfig
from vtk_cli.segment.solov2.predictions import Target

BACKGROUND = -1


@dataclass(frozen=True)
class LevelTargets:
    """What one level is to predict in one image.

    Args:
        category: (S, S) int64 labels, `BACKGROUND` where no object is.
        cells: (m,) int64, row * S + column of the cells that have a mask to predict, object by object in the order of
            the file. A cell stands here once for every object whose centre it holds.
        objects: (m,) int64, whose mask.
        ignored: (S, S) bool: cells whose category is not judged; None where all are.
    """

    category: Tensor
    cells: Tensor
    objects: Tensor
    ignored: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> LevelTargets:
        """The same on `device`."""
        parts = (self.category, self.cells, self.objects)
        category, cells, objects = (part.to(device, non_blocking=non_blocking) for part in parts)
        ignored = None if self.ignored is None else self.ignored.to(device, non_blocking=non_blocking)
        return LevelTargets(category, cells, objects, ignored)


@dataclass(frozen=True)
class ImageTargets:
    """What the network is to predict in one image.

    Args:
        levels: the finest first.
        masks: (n, H, W) bool on the cells of the mask features, padding included.
    """

    levels: tuple[LevelTargets, ...]
    masks: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> ImageTargets:
        """The same on `device`."""
        levels = tuple(level.to(device, non_blocking=non_blocking) for level in self.levels)
        return ImageTargets(levels, self.masks.to(device, non_blocking=non_blocking))


def assign(
    target: Target, levels: Sequence[LevelConfig], sigma: float, canvas: tuple[int, int], mask_stride: int
) -> ImageTargets:
    """The cells of an image's objects. An object without a cell of the mask features is nobody's.

    In a cell of several objects the category is the last one's, and each of them has its mask to predict there, as in
    the published code; `one_mask_a_cell` leaves the last.

    Args:
        target: the objects, in pixels of the augmented image.
        levels: of the network.
        sigma: see `SegmenterConfig`.
        canvas: height and width of the padded image.
        mask_stride: pixels a cell of the mask features is wide.
    """
    masks = on_mask_cells(target.masks, canvas, mask_stride)
    seen = masks.flatten(1).any(1)
    sides = (target.boxes[:, 2:] - target.boxes[:, :2]).double().clamp(min=0)
    scale = sides.prod(1).sqrt()
    centres = mass_centres(target.masks)
    made = []
    for level in levels:
        chosen = (seen & (scale >= level.low) & (scale < level.high)).nonzero()[:, 0]
        windows = central_cells(centres[chosen], sides[chosen], level.grid, sigma, canvas)
        made.append(_level_targets(level.grid, chosen, windows, target.labels))
    return ImageTargets(tuple(made), masks)


def one_mask_a_cell(targets: ImageTargets) -> ImageTargets:
    """The same where a cell of several objects has only the mask of the one whose category it has."""
    return replace(targets, levels=tuple(_last_alone(level) for level in targets.levels))


def ignore_around(targets: ImageTargets, points: Tensor, canvas: tuple[int, int]) -> ImageTargets:
    """The same where empty cells within 1 of the cell of a point are not judged: there is an object without a mask.

    Args:
        targets: of the image.
        points: (u, 2) x, y in pixels of the augmented image.
        canvas: height and width of the padded image.
    """
    levels = []
    for level in targets.levels:
        grid = len(level.category)
        ignored = torch.zeros_like(level.category, dtype=torch.bool)
        for row, column in torch.stack(cells_of(points, grid, canvas), 1).tolist():
            ignored[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
        levels.append(replace(level, ignored=ignored & (level.category == BACKGROUND)))
    return replace(targets, levels=tuple(levels))


def cells_of(points: Tensor, grid: int, canvas: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns, (P,) int64, of the cells that hold points (P, 2) x, y of the canvas; at its rim, the nearest.

    Args:
        points: pixels; (0, 0) is the centre of the top left one.
        grid: S.
        canvas: height and width.
    """
    height, width = canvas
    return _cell(points[:, 1], height, grid), _cell(points[:, 0], width, grid)


def central_cells(centres: Tensor, sides: Tensor, grid: int, sigma: float, canvas: tuple[int, int]) -> Tensor:
    """(m, 4) int64 top, down, left, right, all inclusive: the cells of objects, at most 3 x 3.

    Args:
        centres: (m, 2) x, y of the centres of mass, in pixels.
        sides: (m, 2) width and height of the boxes, in pixels.
        grid: S.
        sigma: how much of the box is central.
        canvas: height and width.
    """
    half = 0.5 * sigma * sides
    columns, rows = zip(
        *(
            (_cell(places[:, 0], canvas[1], grid), _cell(places[:, 1], canvas[0], grid))
            for places in (centres - half, centres, centres + half)
        ),
        strict=True,
    )
    spans = [(torch.maximum(low, at - 1), torch.minimum(high, at + 1)) for low, at, high in (rows, columns)]
    return torch.stack([end for span in spans for end in span], 1)


def mass_centres(masks: Tensor) -> Tensor:
    """(n, 2) float64: the mean x and y of the pixels of (n, H, W) bool masks; 0 of an empty one."""
    n, H, W = masks.shape
    rows, columns = masks.sum(2).double(), masks.sum(1).double()
    area = rows.sum(1).clamp(min=1)
    x = (columns * torch.arange(W, device=masks.device)).sum(1) / area
    y = (rows * torch.arange(H, device=masks.device)).sum(1) / area
    return torch.stack([x, y], 1).reshape(n, 2)


def on_mask_cells(masks: Tensor, canvas: tuple[int, int], stride: int) -> Tensor:
    """Masks on the cells of the mask features: bilinear at 1 / stride of their size, at least 1/2, zeros around them.

    Args:
        masks: (n, H, W) bool at the size of the image.
        canvas: height and width of the padded image, multiples of `stride`.
        stride: pixels a cell is wide.

    Returns:
        (n, canvas height / stride, canvas width / stride) bool.
    """
    n, H, W = masks.shape
    cells = masks.new_zeros((n, canvas[0] // stride, canvas[1] // stride))
    if n:
        height, width = (max(1, int(side / stride + 0.5)) for side in (H, W))
        small = F.interpolate(masks[:, None].float(), size=(height, width), mode="bilinear", align_corners=False)
        cells[:, :height, :width] = small[:, 0] >= 0.5
    return cells


def _cell(places: Tensor, length: int, grid: int) -> Tensor:
    return (places.double() * grid / length).floor().long().clamp(0, grid - 1)


def _level_targets(grid: int, objects: Tensor, windows: Tensor, labels: Tensor) -> LevelTargets:
    category = torch.full((grid, grid), BACKGROUND, dtype=torch.int64, device=labels.device)
    numbers = torch.arange(grid * grid, device=labels.device).reshape(grid, grid)
    cells, whose = [numbers.new_zeros(0)], [numbers.new_zeros(0)]
    for which, (top, down, left, right) in zip(objects.tolist(), windows.tolist(), strict=True):
        window = (slice(top, down + 1), slice(left, right + 1))
        category[window] = labels[which]
        cells.append(numbers[window].flatten())
        whose.append(torch.full_like(cells[-1], which))
    return LevelTargets(category, torch.cat(cells), torch.cat(whose))


def _last_alone(level: LevelTargets) -> LevelTargets:
    """Objects come in order, so the greatest index of a cell is the last."""
    last = torch.full((level.category.numel(),), -1, dtype=torch.int64, device=level.cells.device)
    last = last.scatter_reduce(0, level.cells, level.objects, "amax")
    kept = last[level.cells] == level.objects
    return replace(level, cells=level.cells[kept], objects=level.objects[kept])
