"""What annotation byproducts come to once read: points, boxes and a map of the mouse, image by image.

Nothing here imports torch: the processes that read a million files start with these modules.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Form = Literal["imagenet-ab", "tool-json", "coco-ab", "csv", "json", "coco-boxes"]
Point = Literal["last", "first", "mean", "trace-end", "final", "add"]
Units = Literal["fraction", "px"]
Source = Literal["clicks", "boxes"]
Table = Literal["clicks", "trace-end", "add", "boxes"]
"""What is read apart: the clicks, where the mouse last was, the places of COCO-AB's `add` actions, the boxes."""

OWN_LABEL = -1
"""The label of a mark that names no class: it belongs to whatever the image shows."""
TRACE_CELLS = 64
"""The map of the mouse has so many cells a side."""
NOT_SELECTED = "annotators who did not select the image"
CROWDS = "boxes of crowds"
"""Why a reader leaves something out though nothing is wrong with it."""
WIDTHS: Mapping[Table, int] = {"clicks": 2, "trace-end": 2, "add": 2, "boxes": 4}

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Marks:
    """Points or boxes, one a row, in the order in which they were made.

    Args:
        image: int64 (R,), which image of `Byproducts.images`.
        label: int64 (R,), which class of `Byproducts.classes`; `OWN_LABEL` where none is named.
        block: int64 (R,), which of the image's annotators made it.
        line: int64 (R,), the line (CSV) or entry (JSON) it was read from, from 1; 0 where the image says enough.
        values: float64 (R, 2) x, y or (R, 4) left, top, right, bottom, all finite.
    """

    image: Ints
    label: Ints
    block: Ints
    line: Ints
    values: Floats

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: npt.NDArray[np.bool_] | Ints) -> Marks:
        return Marks(self.image[rows], self.label[rows], self.block[rows], self.line[rows], self.values[rows])


@dataclass(frozen=True, eq=False)
class Byproducts:
    """Annotation byproducts as read, before they are matched with a dataset.

    Args:
        path: what was read.
        form: the format it was in.
        source: whether the points come from `clicks` or are the centres of `boxes`.
        point: which of several clicks is the point.
        units: of the points; boxes are always fractions.
        images: what the byproducts call their images: a path with or without extension, or the number of a COCO image.
        classes: the names of the classes that marks name.
        points: of the clicks (empty with `boxes` as the source).
        boxes: None where there are none.
        trace: int64 (64, 64), how often the mouse was in each cell (y, x) of the image, all images together; None where
            no mouse was recorded.
        skipped: what was left out, by reason.
    """

    path: Path
    form: Form
    source: Source
    point: Point
    units: Units
    images: tuple[str, ...]
    classes: tuple[str, ...]
    points: Marks
    boxes: Marks | None
    trace: Ints | None
    skipped: Mapping[str, int]

    def where(self, marks: Marks, row: int) -> str:
        """Where a mark was read, for a message: `clicks.csv:17`."""
        line = int(marks.line[row])
        if self.form == "csv":
            return f"{self.path}:{line}"
        if line:
            return f"{self.path}: entry {line}"
        return f"{self.path}: {self.images[int(marks.image[row])]}"


@dataclass
class _Columns:
    image: array[int] = field(default_factory=lambda: array("q"))
    label: array[int] = field(default_factory=lambda: array("q"))
    block: array[int] = field(default_factory=lambda: array("q"))
    line: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class Collected:
    """Where a reader puts what it finds; several can be joined, so that files can be read side by side."""

    images: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    columns: dict[Table, _Columns] = field(default_factory=dict)
    trace: Ints | None = None
    skipped: Counter[str] = field(default_factory=Counter)

    def image(self, name: str) -> int:
        """The number of the image called `name`, a new one where it is not known yet."""
        return self.images.setdefault(name, len(self.images))

    def label(self, name: str) -> int:
        """The number of the class called `name`, a new one where it is not known yet."""
        return self.classes.setdefault(name, len(self.classes))

    def add(
        self,
        table: Table,
        image: int,
        values: Sequence[float],
        *,
        label: int = OWN_LABEL,
        block: int = 0,
        line: int = 0,
    ) -> None:
        """Add a mark with finite `values`."""
        columns = self.columns.setdefault(table, _Columns())
        columns.image.append(image)
        columns.label.append(label)
        columns.block.append(block)
        columns.line.append(line)
        columns.values.extend(values)

    def add_trace(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Count the places of a mouse trace, fractions of the image; those outside it are passed over."""
        if not xs:
            return
        if self.trace is None:
            self.trace = np.zeros((TRACE_CELLS, TRACE_CELLS), np.int64)
        places = np.array((xs, ys))
        inside = ((places >= 0.0) & (places <= 1.0)).all(axis=0)
        cells = np.minimum((places[:, inside] * TRACE_CELLS).astype(np.int64), TRACE_CELLS - 1)
        np.add.at(self.trace, (cells[1], cells[0]), 1)

    def skip(self, why: str, count: int = 1) -> None:
        """Count something left out."""
        self.skipped[why] += count

    def tables(self) -> dict[Table, Marks]:
        """What was added, table by table."""
        return {
            name: Marks(
                np.array(held.image, np.int64),
                np.array(held.label, np.int64),
                np.array(held.block, np.int64),
                np.array(held.line, np.int64),
                np.array(held.values, np.float64).reshape(-1, WIDTHS[name]),
            )
            for name, held in self.columns.items()
        }


@dataclass(frozen=True, eq=False)
class Read:
    """All that a format holds, as the cache keeps it: `Byproducts` before the choice of point."""

    images: tuple[str, ...]
    classes: tuple[str, ...]
    tables: Mapping[Table, Marks]
    trace: Ints | None
    skipped: Mapping[str, int]

    @classmethod
    def of(cls, collected: Collected) -> Read:
        """What was collected, as arrays."""
        return cls(
            tuple(collected.images),
            tuple(collected.classes),
            collected.tables(),
            collected.trace,
            dict(collected.skipped),
        )


def no_marks(width: int) -> Marks:
    """A table without rows."""
    none = np.zeros(0, np.int64)
    return Marks(none, none, none, none, np.zeros((0, width)))


def joined(parts: Sequence[Read]) -> Read:
    """Several parts of one dataset as one, in order."""
    images: dict[str, int] = {}
    classes: dict[str, int] = {}
    tables: dict[Table, list[Marks]] = {}
    skipped: Counter[str] = Counter()
    traces = [part.trace for part in parts if part.trace is not None]
    for part in parts:
        image = np.array([images.setdefault(name, len(images)) for name in part.images], np.int64)
        # The last place is found by OWN_LABEL, -1, which stays what it is.
        label = np.array([*(classes.setdefault(name, len(classes)) for name in part.classes), OWN_LABEL], np.int64)
        skipped.update(part.skipped)
        for name, marks in part.tables.items():
            moved = Marks(image[marks.image], label[marks.label], marks.block, marks.line, marks.values)
            tables.setdefault(name, []).append(moved)
    return Read(
        tuple(images),
        tuple(classes),
        {name: _stacked(held) for name, held in tables.items()},
        np.sum(traces, axis=0, dtype=np.int64) if traces else None,
        dict(skipped),
    )


def _stacked(parts: Sequence[Marks]) -> Marks:
    return Marks(
        np.concatenate([part.image for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.block for part in parts]),
        np.concatenate([part.line for part in parts]),
        np.concatenate([part.values for part in parts]),
    )
