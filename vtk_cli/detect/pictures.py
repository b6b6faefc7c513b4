"""What a person looks at: predictions beside the truth, training batches with their boxes, curves of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_convert

from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.evaluation import RECALLS, Evaluation
from vtk_cli.data.detection.outlines import outline_mask
from vtk_cli.data.detection.results import Detections
from vtk_cli.detect.confusion import SCORE, confusion_matrix
from vtk_cli.detect.predictions import PaddedImages, Target
from vtk_cli.detect.samples import pixels
from vtk_cli.reports.contact_sheet import Tile, write_contact_sheet
from vtk_cli.reports.detection_curves import PrecisionCurve, draw_confusion, draw_precision_recall
from vtk_cli.reports.overlay import Mark, draw_overlay
from vtk_cli.reports.plots import Picture

_CELL = 320
_WORDS = {"bbox": "boxes", "segm": "masks"}


def draw_detections(image: Image.Image, detections: Detections, class_names: Sequence[str]) -> Image.Image:
    """The image with boxes, masks, class names and scores; choose what to show by `Detections.above`.

    Args:
        image: the upright original.
        detections: the most certain first.
        class_names: by label.
    """
    return draw_overlay(image, _marks(detections, class_names, (image.height, image.width)))


def draw_truth(record: ImageRecord, class_names: Sequence[str]) -> Image.Image:
    """The image with its annotated objects; a crowd is called one.

    Raises:
        BrokenImage: the image cannot be read.
    """
    marks = [
        Mark(
            f"{class_names[label]} (crowd)" if crowd else class_names[label],
            int(label),
            _corners(box),
            None if outline is None else outline_mask(outline, record.height, record.width),
        )
        for box, label, crowd, outline in zip(record.boxes, record.labels, record.crowd, record.outlines, strict=True)
    ]
    return draw_overlay(record.read(), marks)


def write_predictions(
    path: Path, dataset: DetectionSet, detections: Sequence[Detections], *, count: int = 8, score: float = SCORE
) -> None:
    """Write a sheet of pairs: an image with its truth, and with what was detected.

    Args:
        path: a PNG.
        dataset: its images evenly spread.
        detections: at most one an image.
        count: how many images.
        score: detections below it are not drawn.

    Raises:
        BrokenImage: an image cannot be read.
    """
    found = {one.image_id: one for one in detections}
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int))
    tiles: list[Tile] = []
    for record in (dataset.records[index] for index in chosen):
        guess = found.get(record.id)
        drawn = (
            record.read() if guess is None else draw_detections(record.read(), guess.above(score), dataset.class_names)
        )
        tiles += [
            Tile(draw_truth(record, dataset.class_names), f"truth\n{record.file.name}"),
            Tile(drawn, f"detected, score {score:g} or more\n{record.file.name}"),
        ]
    write_contact_sheet(path, tiles, columns=4, cell=_CELL)


def write_batch(
    path: Path, images: PaddedImages, targets: Sequence[Target], class_names: Sequence[str], *, count: int = 8
) -> None:
    """Write a sheet of the first images of a training batch, as the network sees them, with their targets."""
    tiles: list[Tile] = []
    for image, (height, width), target in zip(images.images.cpu(), images.sizes.tolist(), targets, strict=True):
        if len(tiles) == count:
            break
        shown = Image.fromarray(pixels(image[:, :height, :width]).permute(1, 2, 0).numpy())
        extent = torch.tensor([width, height, width, height])
        boxes = box_convert(target.boxes.cpu().float(), "cxcywh", "xyxy") * extent
        marks = [
            Mark(
                class_names[label],
                label,
                _corners(boxes[number].numpy()),
                None if target.masks is None else target.masks[number].cpu().numpy(),
            )
            for number, label in enumerate(target.labels.tolist())
        ]
        tiles.append(Tile(draw_overlay(shown, marks), f"image {target.image_id}\n{height} x {width}"))
    write_contact_sheet(path, tiles, columns=4, cell=_CELL)


def draw_evaluation(
    folder: Path, dataset: DetectionSet, evaluation: Evaluation, detections: Sequence[Detections]
) -> tuple[Picture, Picture]:
    """Draw precision over recall and, of boxes, the confusion matrix into `folder`."""
    what = _WORDS[evaluation.measured]
    with np.errstate(invalid="ignore"):
        present = evaluation.precision[:, :, ~np.isnan(evaluation.precision[0, 0])]
    means = [
        PrecisionCurve(name, _mean(part))
        for name, part in (("IoU .5", present[0]), ("IoU .75", present[5]), ("IoU .5:.95", present.mean(axis=0)))
    ]
    classes = [
        PrecisionCurve(name, evaluation.precision[0, :, label]) for label, name in enumerate(dataset.class_names)
    ]
    images = f"{len(dataset):,} images"
    curves = draw_precision_recall(
        folder / f"precision-recall-{what}",
        RECALLS,
        means,
        classes,
        title=f"Precision and recall of {what}",
        subtitle=f"{images}, classes at IoU .5",
    )
    confusion = draw_confusion(
        folder / "confusion",
        confusion_matrix(dataset, detections),
        dataset.class_names,
        title="What is taken for what",
        subtitle=f"{images}, boxes, IoU .5 or more, score {SCORE:g} or more",
    )
    return curves, confusion


def _marks(detections: Detections, class_names: Sequence[str], size: tuple[int, int]) -> list[Mark]:
    masks = detections.masks or (None,) * len(detections)
    return [
        Mark(
            f"{class_names[label]} {score:.2f}",
            int(label),
            _corners(box),
            None if mask is None else outline_mask(mask, *size),
        )
        for box, label, score, mask in zip(detections.boxes, detections.labels, detections.scores, masks, strict=True)
    ]


def _corners(box: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in box)
    return left, top, right, bottom


def _mean(precision: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(R,) of (R, K): NaN without a class."""
    return precision.mean(axis=1) if precision.shape[1] else np.full(len(precision), np.nan)
