"""Masks from the teacher: of clicked images, as pseudo labels, and of fully labelled ones, as rough masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.outlines import Bools, outline_of_mask
from vtk_cli.data.points import PointImage, PointSet, click_of_mask
from vtk_cli.segment.labels.points import prompts_of
from vtk_cli.segment.labels.sources import common_folder, unclicked
from vtk_cli.segment.options import SegmentOptions
from vtk_cli.segment.pseudo.labels import (
    PseudoLabel,
    UnresolvedClick,
    reasons,
    write_pseudo_labels,
    write_unresolved,
)
from vtk_cli.segment.pseudo.looking import Looker
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
    looker: Looker, points: PointSet, settings: PointSettings, folder: Path, console: Console
) -> tuple[int, list[UnresolvedClick]]:
    """Write `pseudo.json` and `unresolved.json`: a mask for each click, or why there is none.

    Masks become run lengths image by image, so no more are held than an image has.

    Returns:
        How many masks there are, and the clicks without one.
    """
    lost: list[UnresolvedClick] = []
    with console.progress("pseudo labels", len(points)) as progress:

        def labels() -> Iterator[PseudoLabel]:
            prompts = prompts_of(points)
            for seen, outputs in looker.seen(points.images):
                image = points.images[seen.index]
                found = looker.at_points(seen, outputs, prompts[seen.index], settings)
                yield from _flagged(image, list(resolved_labels(image, found)))
                lost.extend(unresolved_clicks(image, found))
                progress.advance(1)

        count = write_pseudo_labels(folder / PSEUDO, labels(), points, common_folder(points.images))
    write_unresolved(folder / UNRESOLVED, lost, points.classes)
    counts = ", ".join(f"{number} x {reason}" for reason, number in reasons(lost).items())
    if lost:
        console.warn(f"{len(lost)} of {points.clicks} clicks are unresolved, see {folder / UNRESOLVED}: {counts}")
    console.note(f"{count:,} pseudo masks for {points.clicks:,} clicks")
    return count, lost


def write_rough(lookers: Sequence[Looker], strong: DetectionSet, folder: Path, console: Console) -> int:
    """Write `rough.json`: the masks that states of the teacher make of the objects of fully labelled images.

    Returns:
        How many there are.
    """
    with console.progress("rough masks", len(lookers) * len(strong)) as progress:

        def labels() -> Iterator[PseudoLabel]:
            number = 0
            for looker in lookers:
                for seen, outputs in looker.seen(strong.records):
                    record = strong.records[seen.index]
                    found = looker.of_objects(seen, outputs, record).cpu()
                    rows = zip(found.scores.tolist(), found.labels.tolist(), found.masks, strict=True)
                    for score, label, mask in rows:
                        pixels: Bools = mask.numpy().astype(np.bool_)
                        if pixels.any():
                            number += 1
                            yield _rough_label(record.id, number, label, score, pixels)
                    progress.advance(1)

        points = unclicked(strong)
        count = write_pseudo_labels(folder / ROUGH, labels(), points, common_folder(strong.records))
    console.note(f"{count:,} rough masks of {strong.objects:,} objects")
    return count


def _rough_label(image_id: int, number: int, label: int, score: float, pixels: Bools) -> PseudoLabel:
    x, y = click_of_mask(pixels, "centroid").tolist()
    return PseudoLabel(image_id, number, label, (x, y), outline_of_mask(pixels), 0, score, score)


def _flagged(image: PointImage, labels: Sequence[PseudoLabel]) -> Iterator[PseudoLabel]:
    sources = dict(zip(image.annotation_ids.tolist(), image.sources, strict=True))
    for label in labels:
        boxed = sources[label.annotation_id] == "bbox"
        yield replace(label, flags=(*label.flags, FROM_BOX)) if boxed else label
