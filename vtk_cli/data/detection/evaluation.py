"""COCO's evaluation of detections: the 12 numbers, each class' share in them, and precision over recall.

The numbers are pycocotools' (`COCOeval`), on data handed to it in memory. Images and annotations are numbered anew from
1: pycocotools takes an annotation whose id is 0 for one that was not found, and some tools number from 0.
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.outlines import Floats, Polygons, coco_rle, run_lengths_of
from vtk_cli.data.detection.records import require_outlines
from vtk_cli.data.detection.results import Detections

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's: average precision over IoU .5:.95, at .5 and .75, of small, medium and large objects (areas up to 32^2, up to
96^2 and above); average recall with 1, 10 and 100 detections an image, and by size."""
IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
RECALLS: Floats = np.linspace(0, 1, 101)
Measured = Literal["bbox", "segm"]
_PARTS = ("precision", "recall", "scores")


@dataclass(frozen=True)
class ClassScores:
    """A class by itself; None where it has no objects (of that size).

    Args:
        name: of the class.
        objects: how many there are, crowds not counted.
        ap, ap50, ap75, ap_small, ap_medium, ap_large, ar100: as `NUMBERS`.
        f1: the best F1 at IoU .5, from interpolated precision, and `score`, the threshold that gives it.
    """

    name: str
    objects: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar100: float | None
    f1: float | None
    score: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good detections are.

    Args:
        measured: `bbox`, or `segm` for masks.
        numbers: by the names in `NUMBERS`, each in [0, 1]; None where there are no such objects.
        classes: by label.
        precision: float64 (10, 101, K): interpolated precision by IoU threshold, recall (`RECALLS`) and class, of all
            sizes, with 100 detections an image; NaN for a class without objects.
    """

    measured: Measured
    numbers: dict[str, float | None]
    classes: tuple[ClassScores, ...]
    precision: Floats

    def to_json(self) -> dict[str, Any]:
        """The numbers and classes, for `summary.json`."""
        return {**self.numbers, "classes": [asdict(one) for one in self.classes]}


def evaluate_boxes(dataset: DetectionSet, detections: Sequence[Detections]) -> Evaluation:
    """COCO's evaluation of boxes.

    Args:
        dataset: every image of it counts, also one that `detections` do not name.
        detections: at most one an image; those after the best 100 of a class in an image do not count.

    Raises:
        ValueError: an image is named twice, or is not in the dataset.
    """
    return _evaluated(dataset, detections, "bbox")


def evaluate_masks(dataset: DetectionSet, detections: Sequence[Detections]) -> Evaluation:
    """COCO's evaluation of masks; as `evaluate_boxes`.

    Raises:
        UserError: an object of the dataset has no outline.
        ValueError: detections have no masks.
    """
    require_outlines(dataset)
    if any(one.masks is None and len(one) for one in detections):
        raise ValueError("the detections have no masks")
    return _evaluated(dataset, detections, "segm")


def _evaluated(dataset: DetectionSet, detections: Sequence[Detections], measured: Measured) -> Evaluation:
    records = sorted(dataset.records, key=lambda record: record.id)
    found = {one.image_id: one for one in detections}
    unknown = found.keys() - {record.id for record in records}
    if unknown or len(found) < len(detections):
        raise ValueError(
            f"detections of unknown images {sorted(unknown)[:5]}" if unknown else "an image is named twice"
        )
    truth = _by_label(entry for n, record in enumerate(records, 1) for entry in _truth(n, record, measured))
    guesses = _by_label(
        entry
        for n, record in enumerate(records, 1)
        if record.id in found
        for entry in _guesses(n, found[record.id], measured)
    )
    sizes = [(record.height, record.width) for record in records]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells how long it takes
        parts = [
            _accumulated(truth[label], guesses[label], sizes, measured) for label in range(len(dataset.class_names))
        ]
        whole = {name: np.concatenate([part[name] for part in parts], axis=-3) for name in _PARTS}
        numbers = _summarised(whole, measured)
    precision = np.where(whole["precision"] < 0, np.nan, whole["precision"])
    counts = dataset.class_counts()
    classes = tuple(
        _class_scores(name, int(counts[label]), label, precision, whole)
        for label, name in enumerate(dataset.class_names)
    )
    return Evaluation(measured, numbers, classes, precision[:, :, :, 0, 2])


def _by_label(entries: Iterable[dict[str, Any]]) -> defaultdict[int, list[dict[str, Any]]]:
    """The entries of each class, numbered from 1."""
    lists: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        own = lists[entry["category_id"] - 1]
        entry["id"] = len(own) + 1
        own.append(entry)
    return lists


def _accumulated(
    truth: list[dict[str, Any]], guesses: list[dict[str, Any]], sizes: Sequence[tuple[int, int]], measured: Measured
) -> dict[str, Floats]:
    """What `COCOeval` accumulates for one class: no class changes another's part, and one needs little memory.

    Args:
        truth, guesses: of the class, `image_id` from 1.
        sizes: height and width of each image.
        measured: boxes or masks.

    Returns:
        `precision` and `scores` (10, 101, 1, 4, 3), `recall` (10, 1, 4, 3); -1 where there are no objects.
    """
    if not truth:
        nothing = np.full((len(IOU_THRESHOLDS), len(RECALLS), 1, 4, 3), -1.0)
        return {"precision": nothing, "scores": nothing, "recall": nothing[:, 0]}
    named = sorted({entry["image_id"] for entry in (*truth, *guesses)})
    images = [{"id": n, "height": sizes[n - 1][0], "width": sizes[n - 1][1]} for n in named]
    category = {"id": truth[0]["category_id"]}
    evaluation = COCOeval(_indexed(images, category, truth), _indexed(images, category, guesses), measured)
    evaluation.evaluate()
    evaluation.accumulate()
    return {name: evaluation.eval[name] for name in _PARTS}


def _summarised(whole: dict[str, Floats], measured: Measured) -> dict[str, float | None]:
    summary = COCOeval(iouType=measured)
    summary.eval = whole
    summary.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(NUMBERS, summary.stats, strict=True)}


def _indexed(images: list[dict[str, Any]], category: dict[str, Any], entries: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": images, "categories": [category], "annotations": entries}
    coco.createIndex()
    return coco


def _truth(image: int, record: ImageRecord, measured: Measured) -> list[dict[str, Any]]:
    entries = [
        {"image_id": image, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for label, box, area, crowd in zip(
            record.labels.tolist(), record.given.tolist(), record.area.tolist(), record.crowd.tolist(), strict=True
        )
    ]
    if measured == "segm":
        for entry, outline, box in zip(entries, record.outlines, record.boxes, strict=True):
            drawn = outline or Polygons((box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2),))  # a crowd that is a box only
            entry["segmentation"] = coco_rle(run_lengths_of(drawn, record.height, record.width))
    return entries


def _guesses(image: int, one: Detections, measured: Measured) -> list[dict[str, Any]]:
    extents = one.boxes[:, 2:] - one.boxes[:, :2]
    boxes = np.concatenate([one.boxes[:, :2], extents], axis=1).tolist()
    entries: list[dict[str, Any]] = [
        {"image_id": image, "category_id": label + 1, "bbox": box, "area": area, "score": score, "iscrowd": 0}
        for label, box, area, score in zip(
            one.labels.tolist(), boxes, extents.prod(axis=1).tolist(), one.scores.tolist(), strict=True
        )
    ]
    if measured == "segm" and one.masks is not None and len(one):
        masks = [coco_rle(mask) for mask in one.masks]
        for entry, mask, area in zip(entries, masks, coco_mask.area(masks).tolist(), strict=True):
            entry["segmentation"], entry["area"] = mask, area
    return entries


def _class_scores(name: str, objects: int, label: int, precision: Floats, found: dict[str, Any]) -> ClassScores:
    """The scores of one class from arrays (threshold, recall, class, size, detections) with NaN where nothing is."""
    own = precision[:, :, label, :, 2]
    recall = found["recall"][:, label, 0, 2]
    f1, score = _best_f1(own[0, :, 0], found["scores"][0, :, label, 0, 2])
    return ClassScores(
        name=name,
        objects=objects,
        ap=_mean(own[:, :, 0]),
        ap50=_mean(own[0, :, 0]),
        ap75=_mean(own[5, :, 0]),
        ap_small=_mean(own[:, :, 1]),
        ap_medium=_mean(own[:, :, 2]),
        ap_large=_mean(own[:, :, 3]),
        ar100=_mean(np.where(recall < 0, np.nan, recall)),
        f1=f1,
        score=score,
    )


def _best_f1(precision: Floats, scores: Floats) -> tuple[float | None, float | None]:
    if np.isnan(precision).any():
        return None, None
    f1 = 2 * precision * RECALLS / np.maximum(precision + RECALLS, 1e-12)
    best = int(f1.argmax())
    return (float(f1[best]), float(scores[best])) if f1[best] > 0 else (0.0, None)


def _mean(values: Floats) -> float | None:
    return None if np.isnan(values).any() else float(values.mean())
