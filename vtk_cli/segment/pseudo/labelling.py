"""Masks from the teacher: of clicked images, as pseudo labels, and of fully labelled ones, as rough masks."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.outlines import Bools, outline_of_mask
from vtk_cli.data.points import Classes, PointImage, PointSet, click_of_mask
from vtk_cli.engine.processes.distributed import World
from vtk_cli.segment.labels.points import prompts_of
from vtk_cli.segment.labels.sources import common_folder, unclicked
from vtk_cli.segment.looking import Looker
from vtk_cli.segment.options import SegmentOptions
from vtk_cli.segment.pseudo.labels import (
    PseudoLabel,
    annotation_of,
    click_of_entry,
    entry_of_click,
    label_of_annotation,
    reasons,
    write_pseudo_labels,
    write_unresolved,
)
from vtk_cli.segment.pseudo.parts import PARTS, made, make_each
from vtk_cli.segment.pseudo.resolving import resolved_labels, unresolved_clicks
from vtk_cli.segment.solov2.point_inference import (
    PointSettings,
    by_score,
    clicked_cells,
    covering_first,
    neighbouring_cells,
)
from vtk_cli.segment.solov2.suppression import MASK_IOU

PSEUDO, UNRESOLVED, ROUGH = "pseudo.json", "unresolved.json", "rough.json"
FROM_BOX = "from_box"
"""The flag of a mask whose click is the centre of a box."""


def point_settings(options: SegmentOptions) -> PointSettings:
    """How clicks choose their masks, as the options say."""
    return PointSettings(
        neighbouring_cells if options.neighbours else clicked_cells,
        covering_first if options.point_inside else by_score,
        MASK_IOU if options.pseudo_nms else None,
        options.most_objects,
    )


def write_pseudo(
    looker: Looker, points: PointSet, settings: PointSettings, folder: Path, *, world: World, console: Console
) -> None:
    """Write `pseudo.json` and `unresolved.json`: a mask for each click, or why there is none.

    Masks become run lengths image by image, so no more are held than an image has. The images are shared among the
    processes, and what is finished of them is kept where a signal or a kill ends the stage (`make_each`).

    Raises:
        Preempted, KeyboardInterrupt: a signal came; what is finished is kept.
        JobError: the disk is full, or the network's answers are not finite.
    """
    prompts = prompts_of(points)

    def make(indices: Sequence[int]) -> Generator[tuple[int, Any]]:
        for seen, outputs in looker.seen([points.images[index] for index in indices]):
            index = indices[seen.index]
            image = points.images[index]
            found = looker.at_points(seen, outputs, prompts[index], settings)
            labels = _flagged(image, list(resolved_labels(image, found)))
            yield (
                index,
                {
                    "labels": [annotation_of(label, 0, points.classes) for label in labels],
                    "lost": [entry_of_click(click, points.classes) for click in unresolved_clicks(image, found)],
                },
            )

    with console.progress("pseudo labels", len(points)) as progress:
        make_each(len(points), make, folder / PARTS, world=world, progress=progress)
    world.on_main(lambda: _join_pseudo(points, folder, console))


def write_rough(
    lookers: Sequence[Looker], strong: DetectionSet, folder: Path, *, world: World, console: Console
) -> None:
    """Write `rough.json`: the masks that states of the teacher make of the objects of fully labelled images.

    Shared among the processes and kept as in `write_pseudo`.

    Raises:
        Preempted, KeyboardInterrupt: a signal came; what is finished is kept.
        JobError: the disk is full, or the network's answers are not finite.
    """
    total, points = len(lookers) * len(strong), unclicked(strong)

    def make(indices: Sequence[int]) -> Generator[tuple[int, Any]]:
        for number, looker in enumerate(lookers):
            before = number * len(strong)
            mine = [index - before for index in indices if index // len(strong) == number]
            for seen, outputs in looker.seen([strong.records[index] for index in mine]):
                record = strong.records[mine[seen.index]]
                found = looker.of_objects(seen, outputs, record).cpu()
                rows = zip(found.scores.tolist(), found.labels.tolist(), found.masks, strict=True)
                labels = (_rough_label(record.id, label, score, mask.numpy()) for score, label, mask in rows)
                made = [annotation_of(label, 0, points.classes) for label in labels if label is not None]
                yield before + mine[seen.index], {"labels": made}

    with console.progress("rough masks", total) as progress:
        make_each(total, make, folder / PARTS, world=world, progress=progress)
    world.on_main(lambda: _join_rough(points, strong.objects, total, folder, console))


def labels_made(folder: Path, count: int, classes: Classes) -> Iterator[PseudoLabel]:
    """The labels in the lines of `count` images, `{"labels": [annotations]}`, one after another."""
    label_of = {identity: label for label, identity in enumerate(classes.ids)}
    for part in made(folder, count):
        for entry in part["labels"]:
            yield label_of_annotation(entry, label_of)


def _join_pseudo(points: PointSet, folder: Path, console: Console) -> None:
    parts, classes = folder / PARTS, points.classes
    label_of = {identity: label for label, identity in enumerate(classes.ids)}
    lost = [click_of_entry(entry, label_of) for part in made(parts, len(points)) for entry in part["lost"]]
    labels = labels_made(parts, len(points), classes)
    count = write_pseudo_labels(folder / PSEUDO, labels, points, common_folder(points.images))
    write_unresolved(folder / UNRESOLVED, lost, classes)
    shutil.rmtree(parts)
    counts = ", ".join(f"{number} x {reason}" for reason, number in reasons(lost).items())
    if lost:
        console.warn(f"{len(lost)} of {points.clicks} clicks are unresolved, see {folder / UNRESOLVED}: {counts}")
    console.note(f"{count:,} pseudo masks for {points.clicks:,} clicks")


def _join_rough(points: PointSet, objects: int, total: int, folder: Path, console: Console) -> None:
    labels = enumerate(labels_made(folder / PARTS, total, points.classes), 1)
    numbered = (replace(label, annotation_id=number) for number, label in labels)
    count = write_pseudo_labels(folder / ROUGH, numbered, points, common_folder(points.images))
    shutil.rmtree(folder / PARTS)
    console.note(f"{count:,} rough masks of {objects:,} objects")


def _rough_label(image_id: int, label: int, score: float, mask: npt.NDArray[Any]) -> PseudoLabel | None:
    """Of an object's mask (H, W); None where it is empty. Numbered later, among those of all images."""
    pixels: Bools = mask.astype(np.bool_)
    if not pixels.any():
        return None
    x, y = click_of_mask(pixels, "centroid").tolist()
    return PseudoLabel(image_id, 0, label, (x, y), outline_of_mask(pixels), 0, score, score)


def _flagged(image: PointImage, labels: Sequence[PseudoLabel]) -> Iterator[PseudoLabel]:
    sources = dict(zip(image.annotation_ids.tolist(), image.sources, strict=True))
    for label in labels:
        boxed = sources[label.annotation_id] == "bbox"
        yield replace(label, flags=(*label.flags, FROM_BOX)) if boxed else label
