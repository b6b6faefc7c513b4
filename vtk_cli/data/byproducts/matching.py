"""Brings annotation byproducts to the samples of a dataset, as fractions of their images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vtk_cli.console import Console
from vtk_cli.data.byproducts.marks import CROWDS, NOT_SELECTED, OWN_LABEL, Byproducts, Floats, Ints, Marks
from vtk_cli.data.byproducts.names import UNMATCHED, Matched, Split, match_names, match_numbers, of_other_split
from vtk_cli.data.byproducts.targets import PointTargets
from vtk_cli.data.images import BrokenImage
from vtk_cli.errors import UserError

SLACK = 0.02
"""By how much of the image a point may lie outside it and still be moved to its edge: the border of the page."""
LEAST_COVERAGE = 0.01
"""Below this share of samples with a point, something is probably wrong."""
LOOKS_LIKE_PIXELS = 2.0
NO_CLASS = -2
"""The label of a class that the data does not have."""
NAMED = 3
HARMLESS = (NOT_SELECTED, CROWDS)
"""What readers leave out where nothing is wrong with the data."""
FLAG = "--byproducts"


@dataclass(frozen=True, eq=False)
class _Data:
    """What marks are brought to.

    Args:
        samples: int64 (M,), the sample of each image of the byproducts, `UNMATCHED` where there is none.
        columns: int64, the label of each of the byproducts' classes.
        classes: how many the data has.
        multi_label: whether samples have several classes.
        labels: of single-label samples; None where they are not known.
        console: for warnings.
    """

    samples: Ints
    columns: Ints
    classes: int
    multi_label: bool
    labels: Ints | None
    console: Console


@dataclass(frozen=True, eq=False)
class _Placed:
    """Marks of the dataset: the rows of a table that are used, and where they belong.

    Args:
        marks: the rows.
        slot: int64 (R,), sample * P + class.
    """

    marks: Marks
    slot: Ints


def match_byproducts(
    byproducts: Byproducts,
    source_names: Sequence[str],
    class_names: Sequence[str],
    *,
    multi_label: bool,
    sizes: Callable[[int], tuple[int, int]] | None = None,
    labels: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
    split: Split = "train",
    console: Console,
) -> PointTargets:
    """The points of each sample.

    What is left out is counted in warnings.

    Args:
        byproducts: from `read_byproducts`.
        source_names: the samples' paths, relative to their split's folder, with `/` between.
        class_names: by label.
        multi_label: a point for each sample and class instead of one a sample.
        sizes: width and height of a sample's upright image, or raises `BrokenImage`; needed for points in pixels.
        labels: single-label data: the samples' labels, so that marks of another class are left out.
        image_ids: COCO data: the samples' image ids, to find the items of COCO-AB by; without them by file name.
        split: which the samples are; names whose leading folders say another are of other images.
        console: for warnings, a note on the coverage and the progress of reading sizes.

    Raises:
        UserError: no sample has a name that the byproducts have, no point is left, points look like pixels, or points
            of a hand-written file lie outside their image.
    """
    matched = _match(byproducts, source_names, image_ids, split, console)
    per_sample = len(class_names) if multi_label else 1
    data = _Data(
        matched.samples,
        _columns(byproducts, class_names, console),
        len(class_names),
        multi_label,
        None if labels is None else np.asarray(labels, np.int64),
        console,
    )
    boxes = None if byproducts.boxes is None else _placed(data, byproducts.boxes, "boxes")
    slots = len(source_names) * per_sample
    if byproducts.source == "boxes" and boxes is not None:
        chosen = _largest(boxes, slots)
        points, present = (chosen[:, :2] + chosen[:, 2:]) / 2.0, chosen[:, 2] > chosen[:, 0]
    else:
        placed = _placed(data, byproducts.points, "points")
        placed = _in_fractions(byproducts, placed, per_sample, sizes, console)
        points, present = _reduced(placed, byproducts.point, slots)
        chosen = np.zeros((0, 4)) if boxes is None else _fitting(boxes, points, present)
    _check_coverage(byproducts, present.reshape(-1, per_sample), console)
    shape = (len(source_names), per_sample)
    points = np.where(present[:, None], points, 0.5)
    return PointTargets(
        torch.from_numpy(points.reshape(*shape, 2)).float(),
        torch.from_numpy(present.reshape(shape)),
        None if boxes is None else torch.from_numpy(chosen.reshape(*shape, 4)).float(),
    )


def _match(
    byproducts: Byproducts, source_names: Sequence[str], image_ids: Sequence[int] | None, split: Split, console: Console
) -> Matched:
    names, count = byproducts.images, len(byproducts.images)
    if byproducts.form == "coco-ab":
        matched = match_numbers(names, source_names, image_ids)
    else:
        matched = match_names(names, source_names)
    elsewhere = [index for index, name in enumerate(names) if of_other_split(name, split)]
    matched.samples[elsewhere] = UNMATCHED
    if not (matched.samples != UNMATCHED).any():
        ours = f"{len(source_names)} images, e.g. {_some(source_names)}" if len(source_names) else "no images"
        theirs = f"{count}, e.g. {_some(names)}" if count else "none"
        why = "could be several images each" if matched.ambiguous else "none is the same image"
        raise UserError(
            f"the data has {ours}, the byproducts {theirs}: {why}",
            f"{FLAG} {byproducts.path}",
            "name the files relative to the split's folder",
        )
    left_out = {
        "are not in the data": matched.unknown,
        "could be several of the data's": matched.ambiguous,
        "are of another split": [names[index] for index in elsewhere],
    }
    for why, which in left_out.items():
        if which:
            console.warn(
                f"{FLAG}: {len(which)} of {count} images of the byproducts {why}, e.g. {_some(which)}; skipped"
            )
    return matched


def _columns(byproducts: Byproducts, class_names: Sequence[str], console: Console) -> Ints:
    """The label of each of the byproducts' classes, `NO_CLASS` where the data lacks it; `OWN_LABEL` comes last."""
    known = {name: label for label, name in enumerate(class_names)}
    columns = np.array([*(known.get(name, NO_CLASS) for name in byproducts.classes), OWN_LABEL], np.int64)
    unknown = [name for name in byproducts.classes if name not in known]
    if unknown:
        tables = [byproducts.points] if byproducts.boxes is None else [byproducts.points, byproducts.boxes]
        count = sum(int((columns[marks.label] == NO_CLASS).sum()) for marks in tables)
        console.warn(
            f"{FLAG}: {count} marks of {len(unknown)} classes that the data does not have"
            f" ({_some(unknown, 10)}) are skipped"
        )
    return columns


def _placed(data: _Data, marks: Marks, what: str) -> _Placed:
    sample, column = data.samples[marks.image], data.columns[marks.label]
    used = (sample != UNMATCHED) & (column != NO_CLASS)
    if data.multi_label:
        wrong, why = used & (column == OWN_LABEL), "that name no class are skipped: an image here has several"
    elif data.labels is not None:
        wrong, why = (
            used & (column != OWN_LABEL) & (column != data.labels[sample]),
            "of another class than their image's are skipped",
        )
    else:
        wrong, why = np.zeros_like(used), ""
    if wrong.any():
        data.console.warn(f"{FLAG}: {int(wrong.sum())} {what} {why}")
    used &= ~wrong
    slot = sample * data.classes + column if data.multi_label else sample
    return _Placed(marks[used], slot[used])


def _in_fractions(
    byproducts: Byproducts,
    placed: _Placed,
    per_sample: int,
    sizes: Callable[[int], tuple[int, int]] | None,
    console: Console,
) -> _Placed:
    """The points as fractions in [0, 1]: those a little outside moved to the edge, those far outside left out."""
    values = placed.marks.values
    if byproducts.units == "px":
        values = values / _sizes(placed.slot // per_sample, sizes, console)
        known = ~_any_coordinate(np.isnan(values))
        if not known.all():
            console.warn(f"{FLAG}: {int((~known).sum())} points are on images that cannot be read; skipped")
        placed, values = _Placed(placed.marks[known], placed.slot[known]), values[known]
    marks = placed.marks
    far = _any_coordinate((values < -SLACK) | (values > 1.0 + SLACK))
    near = _any_coordinate((values < 0.0) | (values > 1.0)) & ~far
    if far.any():
        _refuse(byproducts, marks, np.flatnonzero(far), console)
    if near.any():
        console.warn(f"{FLAG}: {int(near.sum())} points lie up to {SLACK} outside their image; moved to its edge")
    kept = Marks(marks.image, marks.label, marks.block, marks.line, np.clip(values, 0.0, 1.0))
    return _Placed(kept[~far], placed.slot[~far])


def _any_coordinate(found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return found[:, 0] | found[:, 1]


def _refuse(byproducts: Byproducts, marks: Marks, far: Ints, console: Console) -> None:
    first = int(far[0])
    x, y = (f"{value:g}" for value in marks.values[first].tolist())
    where = byproducts.where(marks, first)
    largest = float(np.median(np.abs(marks.values[far]).max(axis=1)))
    if byproducts.units == "fraction" and len(far) * 2 > len(marks) and largest > LOOKS_LIKE_PIXELS:
        what = f"{len(far)} of {len(marks)} points lie outside [0, 1], first ({x}, {y}): this looks like pixels"
        raise UserError(what, where, "use --ab-units px")
    unit = " px" if byproducts.units == "px" else ""
    what = f"{len(far)} of {len(marks)} points lie outside their image, first ({x}, {y}){unit}"
    if byproducts.form in {"csv", "json"}:
        remedy = "give fractions from 0 to 1, or pixels with --ab-units px" if not unit else "mend or remove them"
        raise UserError(what, where, remedy)
    console.warn(f"{where}: {what}; skipped")


def _sizes(samples: Ints, sizes: Callable[[int], tuple[int, int]] | None, console: Console) -> Floats:
    """Width and height of the image of each row, (R, 2); NaN of one that cannot be read."""
    if sizes is None:
        raise UserError("points in pixels need the sizes of the images, which this data does not tell", "--ab-units")
    used, row = np.unique(samples, return_inverse=True)
    measured = np.full((len(used), 2), np.nan)
    with console.progress("reading image sizes", len(used)) as progress:
        for index, sample in enumerate(used.tolist()):
            with suppress(BrokenImage):  # named when training comes upon it
                measured[index] = sizes(sample)
            progress.advance()
    return measured[row]


def _reduced(placed: _Placed, point: str, slots: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """One point a slot: the first, last or mean of each annotator's, then the mean over the annotators."""
    marks, slot = placed.marks, placed.slot
    if not len(marks):
        return np.zeros((slots, 2)), np.zeros(slots, np.bool_)
    order = np.lexsort((marks.block, marks.image, slot))  # stable: each annotator's clicks stay in their order
    slot, image, block, values = slot[order], marks.image[order], marks.block[order], marks.values[order]
    begins = np.ones(len(slot), np.bool_)
    begins[1:] = (np.diff(slot) != 0) | (np.diff(image) != 0) | (np.diff(block) != 0)
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(slot))
    if point == "first":
        chosen = values[starts]
    elif point == "mean":
        chosen = np.add.reduceat(values, starts, axis=0) / (ends - starts)[:, None]
    else:
        chosen = values[ends - 1]
    count = np.bincount(slot[starts], minlength=slots)
    total = np.stack([np.bincount(slot[starts], chosen[:, axis], minlength=slots) for axis in (0, 1)], axis=1)
    return total / np.maximum(count, 1)[:, None], count > 0


def _largest(boxes: _Placed, slots: int) -> Floats:
    """The largest box of each slot, (slots, 4); zeros where there is none."""
    order = np.argsort(_areas(boxes.marks.values), kind="stable")  # of one slot's boxes the last one written stays
    chosen = np.zeros((slots, 4))
    chosen[boxes.slot[order]] = boxes.marks.values[order]
    return chosen


def _fitting(boxes: _Placed, points: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    """Of each slot's boxes the smallest that holds its point, else the largest."""
    values, at = boxes.marks.values, points[boxes.slot]
    holds = present[boxes.slot] & (values[:, :2] <= at).all(axis=1) & (at <= values[:, 2:]).all(axis=1)
    areas = _areas(values)
    # Written from the least fitting to the best: without the point by growing area, then with it by shrinking area.
    order = np.lexsort((np.where(holds, -areas, areas), holds))
    chosen = np.zeros((len(points), 4))
    chosen[boxes.slot[order]] = values[order]
    return chosen


def _areas(boxes: Floats) -> Floats:
    areas: Floats = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _check_coverage(byproducts: Byproducts, present: npt.NDArray[np.bool_], console: Console) -> None:
    for why, count in byproducts.skipped.items():
        (console.note if why in HARMLESS else console.warn)(f"{FLAG}: {count} {why} skipped")
    covered, samples = int(present.any(axis=1).sum()), len(present)
    if not covered:
        raise UserError("no sample has a point", f"{FLAG} {byproducts.path}", "see the warnings above")
    said = f"{FLAG}: {covered} of {samples} samples ({covered / samples:.1%}) have a point"
    if covered < LEAST_COVERAGE * samples:
        console.warn(f"{said}: hardly any; is this the right file?")
    else:
        console.note(said)


def _some(names: Sequence[str], count: int = NAMED) -> str:
    shown = ", ".join(name if len(name) <= 80 else f"{name[:80]}..." for name in names[:count])
    return shown if len(names) <= count else f"{shown}, ..."
