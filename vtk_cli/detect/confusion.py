"""Which class is taken for which: detections and objects of an image paired by overlap, whatever their classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.outlines import Floats
from vtk_cli.data.detection.results import Detections

SCORE = 0.3
"""Detections below it are not shown to users, and not counted here."""
OVERLAP = 0.5


def confusion_matrix(
    dataset: DetectionSet, detections: Sequence[Detections], *, score: float = SCORE, overlap: float = OVERLAP
) -> npt.NDArray[np.int64]:
    """Counts, int64 (K + 1, K + 1): row = class of the object, column = class of the detection paired with it.

    Pairs are formed in an image from the largest overlap down, each object and each detection once. The last row counts
    detections without an object, the last column objects without a detection. Crowds count as neither, nor does a
    detection without an object of which a crowd covers half or more.

    Args:
        dataset: with the objects.
        detections: at most one an image.
        score: detections below it are left out.
        overlap: the least intersection over union of a pair.
    """
    classes = len(dataset.class_names)
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    found = {one.image_id: one.above(score) for one in detections}
    for record in dataset.records:
        _count(counts, record, found.get(record.id), overlap)
    return counts


def _count(counts: npt.NDArray[np.int64], record: ImageRecord, found: Detections | None, overlap: float) -> None:
    nothing = len(counts) - 1
    objects = record.objects(~record.crowd)
    if found is None or not len(found):
        counts[:, nothing] += _histogram(objects.labels, nothing)
        return
    pairs = _pairs(_overlaps(found.boxes, objects.boxes, np.zeros(len(objects), bool)), overlap)
    np.add.at(counts, (objects.labels[pairs[:, 1]], found.labels[pairs[:, 0]]), 1)
    missed = np.setdiff1d(np.arange(len(objects)), pairs[:, 1])
    counts[:, nothing] += _histogram(objects.labels[missed], nothing)
    crowds = record.objects(record.crowd)
    excused = (_overlaps(found.boxes, crowds.boxes, crowds.crowd) >= OVERLAP).any(axis=1)
    extra = np.setdiff1d(np.nonzero(~excused)[0], pairs[:, 0])
    counts[nothing] += _histogram(found.labels[extra], nothing)


def _histogram(labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """int64 (K + 1,): how often each label is there; 0 in the last place."""
    return np.bincount(labels, minlength=classes + 1)


def _overlaps(found: Floats, objects: Floats, crowd: npt.NDArray[np.bool_]) -> Floats:
    """(D, G): intersection over union; over the detection's area where the object is a crowd."""
    if not len(found) or not len(objects):
        return np.zeros((len(found), len(objects)))
    ours, theirs = (
        np.ascontiguousarray(np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1))
        for boxes in (found, objects)
    )
    overlaps: Floats = np.asarray(coco_mask.iou(ours, theirs, crowd.astype(np.uint8)), np.float64)
    return overlaps


def _pairs(overlaps: Floats, least: float) -> npt.NDArray[np.int64]:
    """int64 (P, 2) of (detection, object), from the largest overlap down; ties go to the better detection."""
    candidates = np.argwhere(overlaps >= least)
    order = np.argsort(-overlaps[tuple(candidates.T)], kind="stable")
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for row, column in candidates[order].tolist():
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            pairs.append((row, column))
    return np.array(pairs, np.int64).reshape(-1, 2)
