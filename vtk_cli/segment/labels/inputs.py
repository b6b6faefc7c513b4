"""The two kinds of images that everything starts from, opened and held against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.coco import read_coco
from vtk_cli.data.detection.outlines import Outline, outline_area, run_lengths_of
from vtk_cli.data.detection.reading import Reading, accepted
from vtk_cli.data.points import open_points
from vtk_cli.data.points.clicks import Mode
from vtk_cli.data.points.reading import check_classes
from vtk_cli.data.points.records import Classes, PointSet
from vtk_cli.data.problems import Problem
from vtk_cli.errors import UserError


@dataclass(frozen=True, eq=False)
class SegmentInputs:
    """Fully labelled images and clicked ones, with the same classes and no image in common."""

    strong: DetectionSet
    weak: PointSet


def open_inputs(
    strong: Path,
    weak: Path,
    *,
    images: Path | None = None,
    mode: Mode = "random",
    seed: int = 0,
    skip_bad: bool = False,
    console: Console,
) -> SegmentInputs:
    """Open both; every image is decoded once, and every entry checked.

    Args:
        strong: COCO instances.
        weak: COCO or CSV with clicks, or with what they can be derived from.
        images: the folder of all images; None looks beside each file.
        mode: how clicks are derived from masks.
        seed: of `random`.
        skip_bad: leave out what is wrong in place of refusing it.
        console: shows progress, what there is, what was left out and what will not go well.

    Raises:
        UserError: a file cannot be read, something in it is wrong and not to be skipped, or the two do not go together.
    """
    full = open_strong(strong, images=images, skip_bad=skip_bad, console=console)
    first = 1 + max(record.id for record in full.records)
    clicked = open_points(
        weak,
        images=images,
        classes=classes_of(full),
        mode=mode,
        seed=seed,
        first_id=first,
        skip_bad=skip_bad,
        console=console,
    )
    check_parts(full, clicked, console)
    return SegmentInputs(full, clicked)


def open_strong(path: Path, *, images: Path | None = None, skip_bad: bool = False, console: Console) -> DetectionSet:
    """Open fully labelled images.

    Args:
        path: COCO instances.
        images: the folder of the images; None looks beside the file.
        skip_bad: leave out what is wrong, masks without a pixel among them, in place of refusing it.
        console: shows progress, what there is and what was left out.

    Raises:
        UserError: it cannot be read, has no image, or something is wrong and not to be skipped.
    """
    if not path.is_file():
        raise UserError("no such file of fully labelled images", str(path), "give COCO instances (JSON)")
    reading = _without_empty_masks(read_coco(path, console, images))
    if not reading.records and not reading.problems:
        raise UserError("need at least 1 fully labelled image", str(path), "the file lists none")
    return accepted(reading, path, skip_bad=skip_bad, console=console)


def classes_of(dataset: DetectionSet) -> Classes:
    """The classes of a data set."""
    return Classes(dataset.class_names, dataset.category_ids)


def check_parts(strong: DetectionSet, weak: PointSet, console: Console) -> None:
    """Refuse fully labelled and clicked images that do not go together; warn where they will not go well.

    Raises:
        UserError: no image is fully labelled, an object of one has no mask, the classes differ, or an image is in both.
    """
    if not strong.objects:
        raise UserError("need at least 1 fully labelled image", strong.name)
    if strong.outlined < strong.objects:
        missing = strong.objects - strong.outlined
        what = f"{missing} of {strong.objects} annotations of fully labelled images have no mask"
        raise UserError(what, strong.name, "move these images to the clicked ones, or draw the masks")
    check_classes(weak.classes, classes_of(strong), weak.name)
    check_apart(strong, weak)
    pairs = zip(strong.class_names, strong.class_counts().tolist(), weak.class_counts().tolist(), strict=True)
    unseen = [f"{name} ({clicks} clicks)" for name, masks, clicks in pairs if clicks and not masks]
    if unseen:
        what = f"{len(unseen)} classes are clicked but have no mask, so that the teacher cannot segment them well"
        console.warn(f"{weak.name}: {what}: {', '.join(unseen)}")
    if weak.without_click:
        console.warn(f"{weak.name}: {weak.without_click} images without a click count as background throughout")


def check_apart(strong: DetectionSet, weak: PointSet) -> None:
    """Refuse an image that is fully labelled and clicked too.

    Raises:
        UserError: there is one, or two images share an id.
    """
    by_id = {record.id for record in strong.records}
    by_file = {record.file.resolve() for record in strong.records}
    both = [image for image in weak.images if image.id in by_id or image.file.resolve() in by_file]
    if both:
        first = f"image {both[0].id} ({both[0].file.name})"
        what = f"{len(both)} images are fully labelled and clicked too, or share an id (first {first})"
        raise UserError(what, weak.name, f"leave each in one of the files; the other is {strong.name}")


def _without_empty_masks(reading: Reading) -> Reading:
    """A reading whose objects with a mask all have a pixel of it; the others are problems."""
    problems: list[Problem] = []
    records = []
    for record in reading.records:
        kept = np.array([not _is_empty(outline, record) for outline in record.outlines], np.bool_)
        problems += [
            Problem(f"{reading.name}: image {record.id} ({record.file.name}) object {number}", "mask is empty")
            for number in np.flatnonzero(~kept).tolist()
        ]
        records.append(record if kept.all() else record.objects(kept))
    return replace(reading, records=tuple(records), problems=(*reading.problems, *problems))


def _is_empty(outline: Outline | None, record: ImageRecord) -> bool:
    return outline is not None and outline_area(run_lengths_of(outline, record.height, record.width)) == 0
