"""What a reader of points hands over, and what is done about wrong entries: refused, or left out and counted."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.detection.outlines import Bools, Floats
from vtk_cli.data.points.records import SLACK, Classes, PointImage, PointSet, Source
from vtk_cli.data.problems import Problem, by_fault, told
from vtk_cli.errors import UserError

SAME_CLICK = 1.0
"""Clicks of a class at most so many pixels apart are one."""
OUTSIDE = "point is outside the image"


@dataclass(frozen=True, eq=False)
class Click:
    """A click as it was read: x, y, the label, the annotation's id, and what it was taken from."""

    point: Floats
    label: int
    annotation_id: int
    source: Source


@dataclass(frozen=True, eq=False)
class PointReading:
    """A file as a reader found it; `images` holds what is right."""

    name: str
    images: tuple[PointImage, ...]
    classes: Classes
    problems: tuple[Problem, ...]


def image_of(file: Path, identity: int, size: tuple[int, int], clicks: Sequence[Click]) -> PointImage:
    """An image of `size` (width, height) with its clicks, each moved to the nearest pixel centre's reach."""
    width, height = size
    points = np.array([click.point for click in clicks], np.float64).reshape(-1, 2)
    return PointImage(
        file,
        identity,
        width,
        height,
        np.clip(points, 0, (width - 1, height - 1)),
        np.array([click.label for click in clicks], np.int64),
        np.array([click.annotation_id for click in clicks], np.int64),
        tuple(click.source for click in clicks),
    )


def is_inside(x: float, y: float, size: tuple[int, int]) -> bool:
    """Whether a click counts as one on an image of `size` (width, height); `SLACK` beyond its pixels still does."""
    return -SLACK <= x <= size[0] - 1 + SLACK and -SLACK <= y <= size[1] - 1 + SLACK


def accepted(reading: PointReading, *, skip_bad: bool, console: Console) -> PointSet:
    """The points of a reading, each object's click once.

    Args:
        reading: of the file.
        skip_bad: go on without the wrong entries, with a warning that counts them.
        console: told what was left out, what was clicked twice, and what there is.

    Raises:
        UserError: something is wrong and not to be skipped, or no image is left.
    """
    if reading.problems and not skip_bad:
        what = f"{len(reading.problems)} wrong entries: {told(reading.problems)}"
        raise UserError(what, reading.name, "mend them, or leave them out with --skip-bad")
    if not reading.images:
        why = f": {told(reading.problems)}" if reading.problems else ""
        raise UserError(f"no images{why}", reading.name)
    if reading.problems:
        console.warn(f"{reading.name}: {len(reading.problems)} wrong entries left out: {told(reading.problems)}")
    counts = tuple((what, len(places)) for what, places in by_fault(reading.problems))
    points = once_each(PointSet(reading.name, reading.images, reading.classes, counts), console)
    console.note(points.summary())
    return points


def once_each(points: PointSet, console: Console) -> PointSet:
    """The same points without the second of two clicks of a class that are at most a pixel apart, with a warning."""
    kept = [_first_clicks(image) for image in points.images]
    twice = sum(int((~stays).sum()) for stays in kept)
    if not twice:
        return points
    where = next(
        f"image {image.id} annotation {image.annotation_ids[~stays][0]}"
        for image, stays in zip(points.images, kept, strict=True)
        if not stays.all()
    )
    what = "clicks within 1 pixel of another of the same class"
    console.warn(f"{points.name}: {twice} {what}, of which one is kept (first {where})")
    images = tuple(image.clicks(stays) for image, stays in zip(points.images, kept, strict=True))
    return replace(points, images=images)


def check_classes(found: Classes, wanted: Classes, where: str) -> None:
    """Refuse a file whose labels do not mean what those of the fully labelled images mean.

    Raises:
        UserError: names or ids differ.
    """
    if found == wanted:
        return
    here, there = (set(zip(side.ids, side.names, strict=True)) for side in (found, wanted))
    parts = [
        f"{', '.join(f'{identity} {name}' for identity, name in sorted(only)[:10])} only {where_only}"
        for only, where_only in ((here - there, "here"), (there - here, "there"))
        if only
    ]
    what = f"the classes differ from those of the fully labelled images: {'; '.join(parts) or 'another order'}"
    raise UserError(what, where, "give all files the same categories")


def _first_clicks(image: PointImage) -> Bools:
    """bool (n,): which clicks have no earlier kept one of their class within `SAME_CLICK`."""
    kept = np.ones(len(image), np.bool_)
    # Those that are kept, by label and square of the image: one within reach lies in the same or in a square beside it.
    known: defaultdict[tuple[int, int, int], list[tuple[float, float]]] = defaultdict(list)
    for number, (label, (x, y)) in enumerate(zip(image.labels.tolist(), image.points.tolist(), strict=True)):
        column, row = math.floor(x / SAME_CLICK), math.floor(y / SAME_CLICK)
        around = product((label,), (column - 1, column, column + 1), (row - 1, row, row + 1))
        near = (click for square in around for click in known.get(square, ()))
        if any(math.hypot(x - other[0], y - other[1]) <= SAME_CLICK for other in near):
            kept[number] = False
        else:
            known[label, column, row].append((x, y))
    return kept
