"""What was detected, image by image, and the file of it that COCO's tools read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtk_cli.data.coco_faults import are_numbers, get, is_number
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.outlines import Floats, RunLengths, largest_ring, outline_mask, outline_of
from vtk_cli.data.rle import run_lengths
from vtk_cli.errors import UserError
from vtk_cli.files import write_text


@dataclass(frozen=True, eq=False)
class Detections:
    """What was detected in one image.

    Args:
        image_id: of the data file.
        boxes: float64 (n, 4): x1, y1, x2, y2 in pixels of the upright original image.
        scores: float64 (n,), in [0, 1].
        labels: int64 (n,), contiguous.
        masks: n, at the size of the original image; None where only boxes are detected.
    """

    image_id: int
    boxes: Floats
    scores: Floats
    labels: npt.NDArray[np.int64]
    masks: tuple[RunLengths, ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float, labels: Sequence[int] | None = None) -> Detections:
        """Those with at least `score` and, if given, of one of `labels`; the best first."""
        kept = self.scores >= score
        if labels is not None:
            kept &= np.isin(self.labels, list(labels))
        order = np.nonzero(kept)[0]
        order = order[np.argsort(-self.scores[order], kind="stable")]
        masks = None if self.masks is None else tuple(self.masks[index] for index in order)
        return Detections(self.image_id, self.boxes[order], self.scores[order], self.labels[order], masks)


def joined(parts: Iterable[Sequence[Detections]]) -> list[Detections]:
    """The detections of images that were shared out, as one list by image id: that of a single process.

    Raises:
        ValueError: an image is in two parts.
    """
    detections = sorted(chain.from_iterable(parts), key=lambda one: one.image_id)
    for one, other in pairwise(detections):
        if one.image_id == other.image_id:
            raise ValueError(f"image {one.image_id} was looked at twice")
    return detections


def results_of(detections: Iterable[Detections], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO results, an entry a detection.

    Args:
        detections: of some images.
        category_ids: by label.
    """
    return [entry for one in detections for entry in _entries(one, category_ids)]


def write_results(path: Path, detections: Iterable[Detections], category_ids: Sequence[int]) -> None:
    """Write COCO results as JSON, atomically.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    write_text(path, json.dumps(results_of(detections, category_ids), allow_nan=False))


def yolo_lines(one: Detections, width: int, height: int) -> str:
    """The text file that YOLO's tools write for an image: `class cx cy w h score` a line, in shares of the image."""
    extent = np.array([width, height, width, height])
    corners = np.clip(one.boxes, 0, extent) / extent
    boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    rows = zip(one.labels.tolist(), boxes.tolist(), one.scores.tolist(), strict=True)
    return "".join(f"{label} {' '.join(f'{value:.6f}' for value in box)} {score:.6f}\n" for label, box, score in rows)


def yolo_polygons(one: Detections, width: int, height: int) -> str:
    """The text file that YOLO's tools read for an image: `class x1 y1 x2 y2 ...` a line, in shares of the image.

    Of a mask in several parts the file has the largest; of an empty one, no line.
    """
    lines = []
    for label, outline in zip(one.labels.tolist(), one.masks or (), strict=True):
        ring = largest_ring(outline_mask(outline, height, width)) / (width, height)
        if len(ring):
            lines.append(f"{label} {' '.join(f'{value:.6f}' for value in ring.flatten())}\n")
    return "".join(lines)


def read_results(path: Path, dataset: DetectionSet) -> list[Detections]:
    """Read COCO results for a dataset, as other programs write them too.

    Raises:
        UserError: it cannot be read, is no list of results, or an entry is wrong or of an image or a category that the
            dataset does not have.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"no COCO results: {error}", str(path)) from error
    if not isinstance(entries, list):
        raise UserError("is no list of COCO results", str(path), "expected [{image_id, category_id, bbox, score}, ...]")
    sizes = {record.id: (record.height, record.width) for record in dataset.records}
    label_of = {identity: label for label, identity in enumerate(dataset.category_ids)}
    by_image: dict[int, list[dict[str, Any]]] = {}
    for number, entry in enumerate(entries):
        fault = _fault(entry, sizes, label_of)
        if fault:
            raise UserError(fault, f"{path}: result {number}")
        by_image.setdefault(entry["image_id"], []).append(entry)
    return [_detections(identity, found, label_of, sizes[identity]) for identity, found in by_image.items()]


def _entries(one: Detections, category_ids: Sequence[int]) -> Iterable[dict[str, Any]]:
    extents = one.boxes[:, 2:] - one.boxes[:, :2]
    boxes = np.concatenate([one.boxes[:, :2], extents], axis=1).tolist()
    for number, (box, score, label) in enumerate(zip(boxes, one.scores.tolist(), one.labels.tolist(), strict=True)):
        entry = {"image_id": one.image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        if one.masks is not None:
            mask = one.masks[number]
            entry["segmentation"] = {"size": [mask.height, mask.width], "counts": mask.counts.decode()}
        yield entry


def _fault(entry: Any, sizes: dict[int, tuple[int, int]], label_of: dict[int, int]) -> str:
    """What is wrong with a result; empty where nothing is."""
    image, category, box = (get(entry, field) for field in ("image_id", "category_id", "bbox"))
    if not isinstance(image, int) or image not in sizes:
        return f"image_id {image!r} is not in the dataset"
    if not isinstance(category, int) or category not in label_of:
        return f"category_id {category!r} is not in the dataset"
    if not is_number(entry.get("score")):
        return f"score {entry.get('score')!r} is no number"
    if not are_numbers(box, 4) or box[2] < 0 or box[3] < 0:
        return f"bbox {box!r} is not x, y, width and height"
    if "segmentation" in entry:
        try:
            run_lengths(entry["segmentation"], *sizes[image])
        except ValueError as error:
            return f"the mask does not decode: {error}"
    return ""


def _detections(
    identity: int, entries: Sequence[dict[str, Any]], label_of: dict[int, int], size: tuple[int, int]
) -> Detections:
    boxes = np.array([entry["bbox"] for entry in entries], np.float64)
    masks = [outline_of(entry.get("segmentation"), *size) for entry in entries]
    whole = tuple(mask for mask in masks if isinstance(mask, RunLengths))
    return Detections(
        identity,
        np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        np.array([entry["score"] for entry in entries], np.float64),
        np.array([label_of[entry["category_id"]] for entry in entries], np.int64),
        whole if len(whole) == len(entries) else None,
    )
