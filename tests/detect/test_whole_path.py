"""The truth, encoded as a network predicts it, comes back as the truth: from files over a padded batch to AP 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_convert

from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.evaluation import evaluate_boxes, evaluate_masks
from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.data.detection.results import Detections
from vtk_cli.data.detection.scenes import Scene
from vtk_cli.detect import postprocess
from vtk_cli.detect.inference import host_detections
from vtk_cli.detect.mask_code import crop_masks, encode_masks
from vtk_cli.detect.predictions import LevelOutput, Target
from vtk_cli.detect.samples import Collate, EvaluationImages
from vtk_cli.detect.transforms import Letterbox, ShortSide, Stretch

SIZES = ((150, 200), (200, 110), (96, 96), (61, 203))  # height, width
CLASSES, QUERIES = 3, 9


def ellipse(box: np.ndarray, height: int, width: int) -> np.ndarray:
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    centre, radius = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2 <= 1


@pytest.fixture
def dataset(tmp_path) -> DetectionSet:
    """Four images of different sizes; the third is empty."""
    rng = np.random.default_rng(0)
    records = []
    for number, (height, width) in enumerate(SIZES):
        file = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
        count = 0 if number == 2 else 4
        corner = rng.uniform(0, [width - 60, height - 60], (count, 2))
        extent = rng.uniform(25, 59, (count, 2))
        boxes, given = np.concatenate([corner, corner + extent], 1), np.concatenate([corner, extent], 1)
        outlines = tuple(outline_of_mask(ellipse(box, height, width)) for box in boxes)
        labels, crowd = rng.integers(0, CLASSES, count), np.zeros(count, bool)
        area = extent.prod(axis=1)
        records.append(ImageRecord(file, 5 + number, width, height, boxes, given, labels, area, crowd, outlines))
    return DetectionSet("made", "coco", tuple(records), ("a", "b", "c"), (4, 5, 6))


def predicted(targets: tuple[Target, ...]) -> LevelOutput:
    """What a perfect network predicts: an object a query, in any order, and nothing sure in the others."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.full((len(targets), QUERIES, CLASSES), -9.0)
    boxes = torch.rand(len(targets), QUERIES, 4, generator=generator) * 0.3 + 0.3
    vectors = torch.zeros(len(targets), QUERIES, 256)
    for number, target in enumerate(targets):
        queries = torch.randperm(QUERIES, generator=generator)[: len(target.labels)]
        logits[number, queries, target.labels] = 5.0
        boxes[number, queries] = target.boxes
        height, width = target.size
        pixels = box_convert(target.boxes, "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
        if target.masks is not None and len(target.labels):
            vectors[number, queries] = encode_masks(crop_masks(target.masks, pixels), 256)
    return LevelOutput(logits, boxes, vectors=vectors)


def found(dataset: DetectionSet, transform: Callable[[Scene], Scene], side: int | None) -> list[Detections]:
    images = EvaluationImages(dataset, transform, masks=True)
    batch, targets = Collate(side)([images[index] for index in range(len(dataset))])
    assert batch.images.shape[0] == len(SIZES)
    level = predicted(targets)
    sizes = [target.original_size for target in targets]
    each = postprocess.detections(level, postprocess.sigmoid_ranking(level.logits), sizes, masks=True)
    return [host_detections(one, target.image_id) for one, target in zip(each, targets, strict=True)]


@pytest.mark.parametrize(
    ("transform", "side"),
    [(ShortSide.scaled(320), None), (ShortSide.scaled(64), 128), (Stretch(160), None), (Letterbox(256), 256)],
)
def test_the_truth_through_a_batch_of_different_sizes_scores_one(dataset, transform, side):
    detections = found(dataset, transform, side)
    assert evaluate_boxes(dataset, detections).numbers["AP"] == pytest.approx(1)
    masks = evaluate_masks(dataset, detections).numbers
    assert masks["AP75"] == pytest.approx(1)
    assert masks["AP"] > 0.85


def test_a_wrong_size_does_not_score_one(dataset):
    """The check above can fail: the same boxes as shares of the padded batch are not where the objects are."""
    images = EvaluationImages(dataset, ShortSide.scaled(320))
    batch, targets = Collate()([images[index] for index in range(len(dataset))])
    padded = torch.tensor([batch.images.shape[-1], batch.images.shape[-2]] * 2)
    level = predicted(targets)
    scaled = level.boxes * (padded / batch.sizes.flip(1).repeat(1, 2)[:, None])
    ranking = postprocess.sigmoid_ranking(level.logits)
    wrong = postprocess.detections(
        LevelOutput(level.logits, scaled), ranking, [target.original_size for target in targets]
    )
    detections = [host_detections(one, target.image_id) for one, target in zip(wrong, targets, strict=True)]
    assert evaluate_boxes(dataset, detections).numbers["AP"] < 0.5
