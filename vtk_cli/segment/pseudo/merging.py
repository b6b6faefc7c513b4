"""The student's labels: the clicked images with their pseudo masks, and the fully labelled ones with their own.

Both kinds count alike (arXiv 2303.15062, Section 3.1): the merged file is ordinary COCO.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.outlines import segmentation_of
from vtk_cli.data.points.records import PointImage, PointSet
from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path
from vtk_cli.segment.labels.inputs import check_apart
from vtk_cli.segment.pseudo.labels import PseudoLabel, annotation_of, categories


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
    folder = Path(os.path.commonpath([image.file.absolute().parent for image in everything]))
    listed = [_image(image, folder) for image in everything]
    clicked = {image.id for image in weak.images}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write('{"images": ')
        json.dump(listed, stream)
        stream.write(',\n"categories": ')
        json.dump(categories(weak.classes), stream)
        stream.write(',\n"annotations": [')
        entries = [entry for record in strong.records for entry in _annotations(record, strong.category_ids)]
        for number, entry in enumerate(entries, 1):
            _write_entry(stream, number, {"id": number, **entry})
        count = 0
        for count, label in enumerate(labels, 1):
            if label.image_id not in clicked:
                raise UserError(f"a pseudo label is of image {label.image_id}, which is not clicked", weak.name)
            number = len(entries) + count
            _write_entry(stream, number, annotation_of(label, number, weak.classes))
        stream.write("]}\n")
    return Merged(path, folder, len(listed), len(entries), count)


def _image(image: PointImage | ImageRecord, folder: Path) -> dict[str, Any]:
    name = image.file.absolute().relative_to(folder).as_posix()
    return {"id": image.id, "file_name": name, "width": image.width, "height": image.height}


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


def _write_entry(stream: TextIO, number: int, entry: dict[str, Any]) -> None:
    stream.write(",\n" if number > 1 else "\n")
    stream.write(json.dumps(entry, allow_nan=False))  # not `dump`, which is a great deal slower
