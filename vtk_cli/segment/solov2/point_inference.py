"""Masks of clicked objects, with Adaptive Pyramid-Level Selection (arXiv 2303.15062, Section 3.2).

A click says where an object is and of which class; the level of the pyramid that sees it best is the one with the
greatest product of maskness and class probability in the click's cell. However low that product is, the click gets its
mask: what is lost afterwards, and why, is reported.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vtk_cli.segment.solov2.configurations import LevelConfig
from vtk_cli.segment.solov2.masks import binary_masks, image_masks, measure
from vtk_cli.segment.solov2.predictions import Frame, Instances, Outputs, PointPrompt, as_points
from vtk_cli.segment.solov2.suppression import MASK_IOU, mask_nms
from vtk_cli.segment.solov2.targets import cells_of

Reason = Literal["collision", "area", "overlap", "count"]
"""Why a click has no mask: its cells belong to better clicks; the mask is empty or tiny; a better mask of the class
overlaps it; the image has too many."""


@dataclass(frozen=True)
class Clicks:
    """P clicks.

    Args:
        points: (P, 2) float64 x, y in pixels of the upright image.
        at: (P, 2) float64 x, y in pixels of the padded canvas.
        labels: (P,) int64.
        canvas: height and width.
    """

    points: Tensor
    at: Tensor
    labels: Tensor
    canvas: tuple[int, int]


@dataclass(frozen=True)
class ClickCells:
    """The C cells in which each of P clicks may find its mask: one on each level, or nine; the finest level first.

    Args:
        levels: (C,) int64.
        cells: (P, C) int64, row * S + column.
    """

    levels: Tensor
    cells: Tensor


@dataclass(frozen=True)
class ClickScores:
    """What the network thinks of the cells of P clicks.

    Args:
        scores: (P, C) float in [0, 1]: maskness x probability of the click's class.
        maskness: (P, C) float in [0, 1].
        areas: (P, C) float, of the masks, in cells of the mask features.
        covers: (P, C) bool, whether the mask has a cell within 1 of the click's.
    """

    scores: Tensor
    maskness: Tensor
    areas: Tensor
    covers: Tensor


@dataclass(frozen=True)
class PointMasks:
    """Masks of m of the P clicks of an image, in the order of the clicks.

    Args:
        instances: m; their score is the maskness.
        clicks: (m,) int64, which click each is of.
        levels: (m,) int64, the level it is from.
        confidence: (m,) float in [0, 1]: maskness x probability of the click's class.
        covers: (m,) bool, whether the mask has a cell within 1 of the click's.
        unresolved: the clicks without a mask, in order, and why.
    """

    instances: Instances
    clicks: Tensor
    levels: Tensor
    confidence: Tensor
    covers: Tensor
    unresolved: tuple[tuple[int, Reason], ...]


CellRule = Callable[[Tensor, Sequence[LevelConfig], tuple[int, int]], ClickCells]
"""From clicks (P, 2) x, y on the canvas, the levels and the canvas: where masks are looked for."""
Preference = Callable[[ClickScores], Tensor]
"""(P, C): what a click's cell is chosen by, greatest first; equal values leave the finer level."""


@dataclass(frozen=True)
class PointSettings:
    """How clicks choose their masks.

    Args:
        cells: `clicked_cells` or `neighbouring_cells`.
        prefer: `by_score`, as published, or `covering_first`.
        most_iou: the most IoU that masks of two clicks of a class may have; None: any.
        most: masks an image has at most; None: any number.
    """

    cells: CellRule
    prefer: Preference
    most_iou: float | None = MASK_IOU
    most: int | None = 100


@torch.no_grad()
def masks_at_points(
    outputs: Outputs,
    frame: Frame,
    levels: Sequence[LevelConfig],
    prompts: Sequence[PointPrompt],
    settings: PointSettings,
) -> PointMasks:
    """The mask of each click of one image.

    Args:
        outputs: of one image, as a batch of 1.
        frame: of the image.
        levels: of the network; whatever its size, an object may come from any of them.
        prompts: P clicks.
        settings: how they choose.
    """
    outputs = outputs.float()
    features = outputs.mask_features[0]
    points, labels = as_points(prompts, features.device)
    clicks = Clicks(points, to_canvas(points, frame), labels, frame.padded)
    found = settings.cells(clicks.at, levels, clicks.canvas)
    kernels = cell_kernels(outputs, found)
    scores = score_cells(outputs, clicks, found, kernels)
    columns = choose_cells(clicks, found, scores, settings.prefer(scores))
    everyone = torch.arange(len(prompts), device=features.device)
    chosen = columns.clamp(min=0)
    kernels, maskness, areas = (each[everyone, chosen] for each in (kernels, scores.maskness, scores.areas))
    least = areas.new_tensor([level.stride for level in levels])[found.levels[chosen]]

    rules: tuple[tuple[Reason, Callable[[Tensor], Tensor]], ...] = (
        ("collision", lambda kept: columns[kept] >= 0),
        ("area", lambda kept: areas[kept] > least[kept]),
        ("overlap", lambda kept: _apart(kernels[kept], features, labels[kept], maskness[kept], settings.most_iou)),
        ("count", lambda kept: _best(maskness[kept], settings.most)),
    )
    kept, reasons = everyone, dict[int, Reason]()
    for reason, rule in rules:
        stays = rule(kept)
        reasons |= dict.fromkeys(kept[~stays].tolist(), reason)
        kept = kept[stays]
    return PointMasks(
        instances=Instances.of_masks(maskness[kept], labels[kept], image_masks(kernels[kept], features, frame)),
        clicks=kept,
        levels=found.levels[chosen[kept]],
        confidence=scores.scores[kept, chosen[kept]],
        covers=scores.covers[kept, chosen[kept]],
        unresolved=tuple(sorted(reasons.items())),
    )


def to_canvas(points: Tensor, frame: Frame) -> Tensor:
    """Clicks (P, 2) x, y from pixels of the upright image to pixels of the padded canvas, as float64."""
    (height, width), (resized_height, resized_width) = frame.original, frame.resized
    factors = points.new_tensor([resized_width / width, resized_height / height], dtype=torch.float64)
    return (points.double() + 0.5) * factors - 0.5


def clicked_cells(points: Tensor, levels: Sequence[LevelConfig], canvas: tuple[int, int]) -> ClickCells:
    """The cell of each click on each level: C = the number of levels.

    Args:
        points: (P, 2) x, y on the canvas.
        levels: of the network.
        canvas: height and width.
    """
    return _cells_within(points, levels, canvas, ((0, 0),))


def neighbouring_cells(points: Tensor, levels: Sequence[LevelConfig], canvas: tuple[int, int]) -> ClickCells:
    """The cell of each click and the eight around it, on each level: C = 9 x the number of levels.

    A teacher learns the central cells of an object alone, so a click near the rim may lie in one that never learnt.

    Args:
        points: (P, 2) x, y on the canvas.
        levels: of the network.
        canvas: height and width.
    """
    around = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    return _cells_within(points, levels, canvas, tuple(sorted(around, key=lambda step: abs(step[0]) + abs(step[1]))))


def cell_kernels(outputs: Outputs, found: ClickCells) -> Tensor:
    """(P, C, E): the kernels of the clicks' cells, of one image's outputs."""
    by_level = [level.kernels[0].flatten(1).T for level in outputs.levels]
    chosen = [by_level[level][found.cells[:, column]] for column, level in enumerate(found.levels.tolist())]
    return torch.stack(chosen, 1)


def score_cells(outputs: Outputs, clicks: Clicks, found: ClickCells, kernels: Tensor) -> ClickScores:
    """What the network thinks of the clicks' cells; one matrix product for all of them, in chunks.

    Args:
        outputs: of one image, as a batch of 1, in float32.
        clicks: P.
        found: their cells.
        kernels: (P, C, E) of the cells.
    """
    features = outputs.mask_features[0]
    P, C, E = kernels.shape
    rows, columns = _mask_cells(clicks, features)
    repeated = (rows.repeat_interleave(C), columns.repeat_interleave(C))
    measures = measure(kernels.reshape(P * C, E), features, repeated)
    categories = [level.category[0].flatten(1) for level in outputs.levels]
    chances = [
        categories[level][clicks.labels, found.cells[:, column]] for column, level in enumerate(found.levels.tolist())
    ]
    maskness = measures.maskness.reshape(P, C)
    return ClickScores(
        scores=maskness * torch.stack(chances, 1).sigmoid(),
        maskness=maskness,
        areas=measures.areas.reshape(P, C),
        covers=measures.covers.reshape(P, C),
    )


def by_score(scores: ClickScores) -> Tensor:
    """The score alone, as in the published code."""
    return scores.scores


def covering_first(scores: ClickScores) -> Tensor:
    """The score of masks that cover their click, before all others; where none does, the score alone."""
    some = scores.covers.any(1, keepdim=True)
    return scores.scores.masked_fill(some & ~scores.covers, -1)


def choose_cells(clicks: Clicks, found: ClickCells, scores: ClickScores, preference: Tensor) -> Tensor:
    """(P,) int64: the column of the cell that each click gets; -1 where it gets none.

    A cell serves one click of a class. It goes to the click with the greatest score there; equal ones go by whether
    the mask covers the click, then by place, so that the order of the clicks says nothing. Who loses takes its next
    cell whose mask covers it.

    Args:
        clicks: P.
        found: their cells.
        scores: of the cells.
        preference: (P, C), the greatest first.
    """
    order = torch.argsort(preference, dim=1, descending=True, stable=True).tolist()
    value, covers, cells = scores.scores.tolist(), scores.covers.tolist(), found.cells.tolist()
    levels, classes, places = found.levels.tolist(), clicks.labels.tolist(), clicks.points.tolist()
    left: list[Iterator[int]] = [
        iter([first, *(column for column in others if covers[click][column])])
        for click, (first, *others) in enumerate(order)
    ]
    chosen = [-1] * len(order)
    waiting: list[tuple[float, bool, float, float, int, int]] = []

    def bid(click: int) -> None:
        column = next(left[click], None)
        if column is not None:
            x, y = places[click]
            heapq.heappush(waiting, (-value[click][column], not covers[click][column], y, x, click, column))

    for click in range(len(order)):
        bid(click)
    taken = set()
    while waiting:
        *_, click, column = heapq.heappop(waiting)
        cell = (levels[column], cells[click][column], classes[click])
        if cell in taken:
            bid(click)
        else:
            taken.add(cell)
            chosen[click] = column
    return torch.tensor(chosen, dtype=torch.int64, device=clicks.labels.device)


def _cells_within(
    points: Tensor, levels: Sequence[LevelConfig], canvas: tuple[int, int], steps: Sequence[tuple[int, int]]
) -> ClickCells:
    """The cells at `steps`, in rows and columns, from those of the points; beyond the rim, the nearest."""
    cells = []
    for level in levels:
        rows, columns = cells_of(points, level.grid, canvas)
        for row, column in steps:
            at = [(each + step).clamp(0, level.grid - 1) for each, step in ((rows, row), (columns, column))]
            cells.append(at[0] * level.grid + at[1])
    numbers = torch.arange(len(levels), device=points.device).repeat_interleave(len(steps))
    return ClickCells(numbers, torch.stack(cells, 1))


def _mask_cells(clicks: Clicks, features: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns, (P,) int64, of the cells of the mask features that hold the clicks."""
    sides = zip(clicks.at.flip(1).T, features.shape[1:], clicks.canvas, strict=True)
    rows, columns = (((at + 0.5) * side / length).floor().long().clamp(0, side - 1) for at, side, length in sides)
    return rows, columns


def _apart(kernels: Tensor, features: Tensor, labels: Tensor, maskness: Tensor, most_iou: float | None) -> Tensor:
    """(n,) bool: the masks that no better one of their class overlaps too much."""
    if most_iou is None:
        return torch.ones_like(labels, dtype=torch.bool)
    return mask_nms(binary_masks(kernels, features), labels, maskness, most_iou)


def _best(scores: Tensor, most: int | None) -> Tensor:
    """(n,) bool: the `most` greatest, the first of equal ones."""
    best = torch.zeros_like(scores, dtype=torch.bool)
    best[torch.argsort(scores, descending=True, stable=True)[:most]] = True
    return best
