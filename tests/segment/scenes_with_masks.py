"""Small data sets with masks, and pseudo labels for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vtk_cli.data.detection.outlines import Bools, outline_of_mask
from vtk_cli.data.detection.reading import Annotated, record_of
from vtk_cli.data.detection.records import DetectionSet, ImageRecord
from vtk_cli.data.points.records import Classes, PointImage, PointSet
from vtk_cli.segment.pseudo.labels import PseudoLabel

CLASSES = Classes(("cat", "dog"), (3, 7))


def box_mask(height: int, width: int, left: int, top: int, right: int, bottom: int) -> Bools:
    mask = np.zeros((height, width), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def paint(file: Path, width: int = 40, height: int = 30) -> Path:
    noise = np.random.default_rng(sum(map(ord, file.name))).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(file)
    return file


def record(file: Path, identity: int, masks: Sequence[tuple[int, Bools]], crowds: Sequence[int] = ()) -> ImageRecord:
    """An image on disk with (label, mask) objects; those whose number is in `crowds` are crowds."""
    height, width = masks[0][1].shape if masks else (30, 40)
    paint(file, width, height)
    objects = []
    for number, (label, mask) in enumerate(masks):
        rows, columns = np.nonzero(mask)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)
        objects.append(Annotated(box, label, crowd=number in crowds, outline=outline_of_mask(mask)))
    return record_of(file, identity, (width, height), objects)


def full_set(records: Sequence[ImageRecord], name: str = "strong.json") -> DetectionSet:
    return DetectionSet(name, "coco", tuple(records), CLASSES.names, CLASSES.ids)


def clicked(file: Path, identity: int, clicks: Sequence[tuple[float, float, int]], first: int = 1) -> PointImage:
    """A 40x30 image on disk with clicks (x, y, label); annotations count from `first`."""
    paint(file)
    return PointImage(
        file,
        identity,
        40,
        30,
        np.array([click[:2] for click in clicks], np.float64).reshape(-1, 2),
        np.array([click[2] for click in clicks], np.int64),
        np.arange(first, first + len(clicks)),
        ("point",) * len(clicks),
    )


def point_set(images: Sequence[PointImage], name: str = "weak.json") -> PointSet:
    return PointSet(name, tuple(images), CLASSES)


def pseudo(image_id: int, annotation_id: int, mask: Bools, label: int = 0, **extra: object) -> PseudoLabel:
    """A label whose click is the first pixel of its mask."""
    row, column = np.argwhere(mask)[0]
    fields = {"level": 1, "score": 0.5, "maskness": 0.75, "point": (float(column), float(row)), **extra}
    return PseudoLabel(image_id, annotation_id, label, mask=outline_of_mask(mask), **fields)
