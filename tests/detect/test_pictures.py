from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet, open_detection
from vtk_cli.data.detection.evaluation import evaluate_boxes
from vtk_cli.data.detection.results import Detections
from vtk_cli.data.embedded import open_embedded
from vtk_cli.detect.pictures import draw_detections, draw_evaluation, draw_truth, write_batch, write_predictions
from vtk_cli.detect.samples import Collate, TrainingImages
from vtk_cli.detect.transforms import Letterbox, ModernTraining
from vtk_cli.files import CACHE_VARIABLE


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> DetectionSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        folder = open_embedded("digits-coco", train=1, val=5).folder
        return open_detection(folder, "val", console=Console(quiet=True))


def found(digits: DetectionSet) -> list[Detections]:
    return [
        Detections(record.id, record.boxes, np.linspace(0.2, 0.9, len(record)), record.labels, record.outlines)
        for record in digits.records[1:]
    ]


def test_detections_are_drawn_where_they_are_and_the_rest_is_left(digits):
    record = digits.records[1]
    image = record.read()
    drawn = draw_detections(image, found(digits)[0], digits.class_names)
    factor = drawn.width // image.width
    before = np.asarray(image).repeat(factor, 0).repeat(factor, 1)
    changed = (np.asarray(drawn) != before).any(axis=2)
    for left, top, right, bottom in (record.boxes * factor).astype(int):
        assert changed[top, left:right].mean() > 0.8
        assert changed[top:bottom, left].mean() > 0.8
    assert changed.mean() < 0.7
    np.testing.assert_array_equal(np.asarray(draw_detections(image, found(digits)[0].above(2), ())), before)


def test_a_sheet_shows_truth_and_detections_side_by_side(digits, tmp_path):
    write_predictions(tmp_path / "p.png", digits, found(digits), count=4)
    assert Image.open(tmp_path / "p.png").width > 4 * 300
    write_predictions(tmp_path / "none.png", digits, [], count=100)
    assert Image.open(tmp_path / "none.png").height > Image.open(tmp_path / "p.png").height
    assert draw_truth(digits.records[0], digits.class_names).width >= 256


def test_a_training_batch_is_drawn_as_the_network_sees_it(digits, tmp_path):
    torch.manual_seed(0)
    samples = TrainingImages(digits, ModernTraining(Letterbox(96)), masks=True)
    images, targets = Collate(96)([samples[index] for index in range(3)])
    write_batch(tmp_path / "b.png", images, targets, digits.class_names)
    assert Image.open(tmp_path / "b.png").width > 3 * 300


def test_an_evaluation_is_drawn_also_where_nothing_was_found(digits, tmp_path):
    for name, detections in (("some", found(digits)), ("none", [])):
        pictures = draw_evaluation(tmp_path / name, digits, evaluate_boxes(digits, detections), detections)
        assert [picture.png.name for picture in pictures] == ["precision-recall-boxes.png", "confusion.png"]
        assert all(isinstance(picture.svg, Path) and picture.svg.stat().st_size > 1000 for picture in pictures)
