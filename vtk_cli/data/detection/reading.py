"""What a reader of annotations hands over, and what is done about wrong entries: refused, or left out and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.detection.outlines import Floats, Outline, outline_area
from vtk_cli.data.detection.records import DetectionSet, Format, ImageRecord
from vtk_cli.data.problems import Problem, by_fault, told
from vtk_cli.errors import UserError


@dataclass(frozen=True, eq=False)
class Reading:
    """A split as a reader found it.

    Args:
        name: the annotation file or folder.
        kind: its format.
        records: what is right, in the order of the files; wrong entries are left out, or mended where their fault says
            how.
        class_names, category_ids: by label.
        problems: what was wrong.
        entries: how many images and objects there were to read.
    """

    name: str
    kind: Format
    records: tuple[ImageRecord, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    problems: tuple[Problem, ...]
    entries: int


@dataclass(frozen=True, eq=False)
class Annotated:
    """An object of an image: its box (4,) x1, y1, x2, y2 inside the image, label, and the rest of its record.

    `area` is None where the file gives none: then it is that of the outline, else of the box. `given` is x, y, width
    and height as the file gives them, None where it gives them in another way or they had to be clipped.
    """

    box: Floats
    label: int
    crowd: bool = False
    outline: Outline | None = None
    area: float | None = None
    given: Floats | None = None


def record_of(file: Path, identity: int, size: tuple[int, int], objects: Sequence[Annotated]) -> ImageRecord:
    """The record of an image of `size` (width, height)."""
    boxes = np.array([one.box for one in objects], np.float64).reshape(-1, 4)
    return ImageRecord(
        file,
        identity,
        *size,
        boxes,
        np.array([_given(one) for one in objects], np.float64).reshape(-1, 4),
        np.array([one.label for one in objects], np.int64),
        np.array([_area(one) for one in objects], np.float64),
        np.array([one.crowd for one in objects], np.bool_),
        tuple(one.outline for one in objects),
    )


def clipped(box: Floats, size: tuple[int, int]) -> Floats | None:
    """A box within the image of `size` (width, height); None where nothing of it is."""
    inside = np.clip(box, 0, (*size, *size))
    return inside if inside[2] > inside[0] and inside[3] > inside[1] else None


def accepted(reading: Reading, path: Path, *, skip_bad: bool, console: Console) -> DetectionSet:
    """The dataset of a reading.

    Args:
        reading: of the split.
        path: what the user called the dataset.
        skip_bad: go on without the wrong entries, with a warning that counts them.
        console: told what was left out, and what there is.

    Raises:
        UserError: something is wrong and not to be skipped, or no image is left.
    """
    if reading.problems and not skip_bad:
        what = f"{len(reading.problems)} wrong entries: {told(reading.problems)}"
        fix = f"leave them out with --skip-bad, or see all with vtk data check {path}"
        raise UserError(what, reading.name, fix)
    if not reading.records:
        why = f": {told(reading.problems)}" if reading.problems else ""
        raise UserError(f"no images{why}", reading.name)
    if reading.problems:
        what = f"{len(reading.problems)} wrong entries left out, or clipped to the image"
        console.warn(f"{reading.name}: {what}: {told(reading.problems)}; see all with vtk data check {path}")
    counts = tuple((what, len(places)) for what, places in by_fault(reading.problems))
    dataset = DetectionSet(
        reading.name, reading.kind, reading.records, reading.class_names, reading.category_ids, counts
    )
    console.note(dataset.summary())
    return dataset


def _given(one: Annotated) -> Floats:
    return np.concatenate([one.box[:2], one.box[2:] - one.box[:2]]) if one.given is None else one.given


def _area(one: Annotated) -> float:
    if one.area is not None:
        return one.area
    area = 0.0 if one.outline is None else outline_area(one.outline)
    return area if area > 0 else float((one.box[2] - one.box[0]) * (one.box[3] - one.box[1]))
