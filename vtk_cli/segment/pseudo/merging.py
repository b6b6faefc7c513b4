"""The student's labels: the clicked images with their pseudo masks, and the fully labelled ones with their own.

Both kinds count alike (arXiv 2303.15062, Section 3.1): the merged file is ordinary COCO.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.outlines import segmentation_of
from vtk_cli.data.points.records import PointImage, PointSet
from vtk_cli.errors import UserError
from vtk_cli.segment.labels.coco_stream import coco_stream
from vtk_cli.segment.labels.inputs import check_apart
from vtk_cli.segment.labels.sources import common_folder
from vtk_cli.segment.pseudo.labels import PseudoLabel, annotation_of


@dataclass(frozen=True)
class Merged:
    """What the merged file holds.

    Args:
        path: of the file.
        images_folder: what its file names are relative to.
        images: all.
        strong: annotations of fully labelled images, crowds among them.
        pseudo: annotations that are pseudo labels.
    """

    path: Path
    images_folder: Path
    images: int
    strong: int
    pseudo: int


def write_merged(path: Path, strong: DetectionSet, weak: PointSet, labels: Iterable[PseudoLabel]) -> Merged:
    """Write the clicked images, then the fully labelled ones, and the annotations of the latter, then `labels`.

    Annotations are numbered from 1. File names are relative to the folder that all images have in common.

    Args:
        path: the file, written atomically.
        strong: the fully labelled images.
        weak: the clicked ones, none of them strong.
        labels: of clicked images, taken one at a time.

    Raises:
        UserError: an image is in both, or a label is of an image that is not among the clicked ones.
        JobError: the disk is full.
    """
    check_apart(strong, weak)
    everything: Sequence[PointImage | ImageRecord] = (*weak.images, *strong.records)
    folder = common_folder(everything)
    clicked = {image.id for image in weak.images}
    entries = [entry for record in strong.records for entry in _annotations(record, strong.category_ids)]
    count = 0
    with coco_stream(path, everything, folder, weak.classes) as write:
        for number, entry in enumerate(entries, 1):
            write({"id": number, **entry})
        for count, label in enumerate(labels, 1):
            if label.image_id not in clicked:
                raise UserError(f"a pseudo label is of image {label.image_id}, which is not clicked", weak.name)
            write(annotation_of(label, len(entries) + count, weak.classes))
    return Merged(path, folder, len(everything), len(entries), count)


def _annotations(record: ImageRecord, category_ids: Sequence[int]) -> Iterable[dict[str, Any]]:
    for number, outline in enumerate(record.outlines):
        yield {
            "image_id": record.id,
            "category_id": category_ids[int(record.labels[number])],
            "bbox": record.given[number].tolist(),
            "area": float(record.area[number]),
            "iscrowd": int(record.crowd[number]),
            "segmentation": [] if outline is None else segmentation_of(outline),
        }
