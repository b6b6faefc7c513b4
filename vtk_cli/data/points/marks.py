"""What people mark on images in labelling tools: masks, boxes and clicks, one or several of them an object.

A tool counts coordinates from the corner of the image, so that the centre of the top left pixel is (0.5, 0.5); outlines
and boxes keep that, as in COCO, and clicks are moved by half a pixel, as everywhere here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vtk_cli.data.coco_faults import is_number, key_of
from vtk_cli.data.detection.outlines import (
    Bools,
    Floats,
    Outline,
    Polygons,
    RunLengths,
    outline_area,
    outline_mask,
    outline_of_mask,
    run_lengths_of,
)
from vtk_cli.data.points.reading import OUTSIDE, is_inside
from vtk_cli.data.problems import Problem
from vtk_cli.data.rle import is_drawable

Kind = Literal["mask", "box", "click"]
UNREAD = "shape is of a kind that is not read"
_CENTRE = 0.5


@dataclass(frozen=True, eq=False)
class Mark:
    """An object as it was marked: its class, and what there is of it.

    Args:
        name: of the class.
        outline: its mask, at the size of the image.
        box: float64 (4,) x1, y1, x2, y2 from the image's corner.
        click: float64 (2,) x, y, (0, 0) the centre of the top left pixel.
    """

    name: str
    outline: Outline | None = None
    box: Floats | None = None
    click: Floats | None = None


@dataclass(frozen=True, eq=False)
class MarkedImage:
    """An image and the objects marked on it."""

    file: Path
    width: int
    height: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True, eq=False)
class Marked:
    """What a labelling tool exported, and what is wrong with it; `images` holds what is right."""

    name: str
    images: tuple[MarkedImage, ...]
    problems: tuple[Problem, ...]


Size = tuple[int, int]
"""Width and height."""


def click_mark(name: str, x: Any, y: Any, size: Size) -> Mark | str:
    """A click at x, y from the image's corner, or what is wrong."""
    if not is_number(x) or not is_number(y):
        return "point is not two numbers"
    if not is_inside(x - _CENTRE, y - _CENTRE, size):
        return OUTSIDE
    return Mark(name, click=np.array([x - _CENTRE, y - _CENTRE], np.float64))


def polygon_mark(name: str, points: Any, size: Size) -> Mark | str:
    """A polygon [[x, y], ...] from the image's corner, clipped to the image, or what is wrong."""
    corners = numbers(points, 2)
    if corners is None or len(corners) < 3:
        return "polygon is not three or more points"
    outline = Polygons((np.clip(corners, 0, size),))
    if not is_drawable(outline.parts):
        return "polygon winds too much to be drawn"
    return Mark(name, outline=outline) if _covers(outline, size) else "mask is empty"


def box_mark(name: str, corners: Any, size: Size) -> Mark | str:
    """A box by two opposite corners [[x, y], [x, y]] from the image's corner, clipped to it, or what is wrong."""
    found = numbers(corners, 2)
    if found is None or len(found) != 2:
        return "box is not two corners"
    ordered = np.concatenate([found.min(axis=0), found.max(axis=0)])
    box = np.clip(ordered, 0, (*size, *size))
    if (ordered[2:] <= ordered[:2]).any():
        return "box has no area"
    return Mark(name, box=box) if (box[2:] > box[:2]).all() else "box lies outside the image"


def patch_mark(name: str, patch: Bools, corner: tuple[int, int], size: Size) -> Mark | str:
    """A mask given as a patch, bool (h, w), whose top left pixel is `corner` (x, y), or what is wrong."""
    whole = np.zeros((size[1], size[0]), np.bool_)
    x, y = corner
    left, top = max(0, x), max(0, y)
    inside = patch[top - y : size[1] - y, left - x : size[0] - x] if x < size[0] and y < size[1] else patch[:0]
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return Mark(name, outline=outline_of_mask(whole)) if whole.any() else "mask is empty"


def grouped(parts: Sequence[tuple[Any, Mark]], size: Size) -> tuple[Mark, ...]:
    """Marks of which those with the same class and group, not None, are parts of one object.

    Its outline is all of their outlines, its box is about all boxes, its click the first.
    """
    objects: dict[Any, list[Mark]] = {}
    for number, (group, mark) in enumerate(parts):
        key = (number,) if group is None else (key_of(group), mark.name)
        objects.setdefault(key, []).append(mark)
    return tuple(marks[0] if len(marks) == 1 else _joined(marks, size) for marks in objects.values())


def numbers(values: Any, width: int) -> Floats | None:
    """float64 (n, width) of a list of lists of finite numbers; None where it is none."""
    if not isinstance(values, list) or not values:
        return None
    whole = all(isinstance(row, list) and len(row) == width and all(map(is_number, row)) for row in values)
    return np.array(values, np.float64) if whole else None


def class_name(entry: Mapping[str, Any], field: str) -> str | None:
    """The class that a shape names; None where it names none."""
    name = entry.get(field)
    return name.strip() if isinstance(name, str) and name.strip() else None


def _covers(outline: Outline, size: Size) -> bool:
    return outline_area(run_lengths_of(outline, size[1], size[0])) > 0


def _joined(marks: Sequence[Mark], size: Size) -> Mark:
    boxes = [mark.box for mark in marks if mark.box is not None]
    corners = np.array(boxes).reshape(-1, 4)
    return Mark(
        marks[0].name,
        _union([mark.outline for mark in marks if mark.outline is not None], size),
        np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)]) if boxes else None,
        next((mark.click for mark in marks if mark.click is not None), None),
    )


def _union(outlines: Sequence[Outline], size: Size) -> Outline | None:
    if not outlines:
        return None
    polygons = [outline for outline in outlines if isinstance(outline, Polygons)]
    if len(polygons) == len(outlines):
        return Polygons(tuple(part for outline in polygons for part in outline.parts))
    masks = [outline_mask(outline, size[1], size[0]) for outline in outlines]
    runs: RunLengths = outline_of_mask(np.logical_or.reduce(masks))
    return runs
