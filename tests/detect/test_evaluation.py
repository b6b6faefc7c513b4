from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet, ImageRecord, open_detection
from vtk_cli.data.detection.evaluation import NUMBERS, evaluate_boxes, evaluate_masks
from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.data.detection.results import Detections, joined, read_results, write_results, yolo_lines
from vtk_cli.data.embedded import open_embedded
from vtk_cli.detect.confusion import confusion_matrix
from vtk_cli.errors import UserError
from vtk_cli.files import CACHE_VARIABLE

QUIET = Console(quiet=True)


def box_mask(box: np.ndarray, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    left, top, right, bottom = np.round(box).astype(int)
    mask[top:bottom, left:right] = True
    return mask


def made(seed: int = 0, images: int = 12, classes: int = 4) -> tuple[DetectionSet, list[Detections]]:
    """Random objects, some of them crowds, and detections that are near some, far from others, or repeated."""
    rng = np.random.default_rng(seed)
    records, detections = [], []
    for number in range(images):
        width, height = int(rng.integers(150, 400)), int(rng.integers(150, 400))
        count = int(rng.integers(0, 8))
        corner = rng.uniform(0, [width - 130, height - 130], (count, 2)).round()
        extent = rng.uniform(8, 130, (count, 2)).round()
        boxes, given = np.concatenate([corner, corner + extent], 1), np.concatenate([corner, extent], 1)
        labels, crowd = rng.integers(0, classes - 1, count), rng.uniform(size=count) < 0.15  # the last class has none
        outlines = tuple(outline_of_mask(box_mask(box, height, width)) for box in boxes)
        identity = 900 - 7 * number  # not in the order of the list
        area = extent.prod(axis=1)
        records.append(ImageRecord(Path("x"), identity, width, height, boxes, given, labels, area, crowd, outlines))
        near = np.repeat(boxes, 2, axis=0) + rng.normal(0, 6, (2 * count, 4)).round()
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 2)
        guessed = np.where(rng.uniform(size=2 * count) < 0.8, np.repeat(labels, 2), rng.integers(0, classes, 2 * count))
        scores = rng.uniform(size=2 * count).round(2)  # with ties
        masks = tuple(outline_of_mask(box_mask(box, height, width)) for box in near.clip(0))
        if number != 3:
            detections.append(Detections(identity, near, scores, guessed, masks))
    names = tuple(f"c{label}" for label in range(classes))
    return DetectionSet(
        "made", "coco", tuple(records), names, tuple(10 * label for label in range(classes))
    ), detections


def official(dataset: DetectionSet, results: list[dict], measured: str, path: Path) -> np.ndarray:
    """pycocotools on files, as everybody runs it."""
    annotations = []
    for record in dataset.records:
        for index in range(len(record)):
            mask = record.outlines[index]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.id,
                    "category_id": dataset.category_ids[record.labels[index]],
                    "bbox": record.given[index].tolist(),
                    "area": float(record.area[index]),
                    "iscrowd": int(record.crowd[index]),
                    "segmentation": {"size": [mask.height, mask.width], "counts": mask.counts.decode()},
                }
            )
    content = {
        "images": [{"id": record.id, "width": record.width, "height": record.height} for record in dataset.records],
        "annotations": annotations,
        "categories": [{"id": identity} for identity in dataset.category_ids],
    }
    path.write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(results), measured)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("measured", "evaluate"), [("bbox", evaluate_boxes), ("segm", evaluate_masks)])
def test_the_twelve_numbers_are_pycocotools_on_the_same_files(tmp_path, seed, measured, evaluate):
    dataset, detections = made(seed)
    write_results(tmp_path / "results.json", detections, dataset.category_ids)
    results = json.loads((tmp_path / "results.json").read_text())
    expected = official(dataset, results, measured, tmp_path / "truth.json")
    numbers = evaluate(dataset, read_results(tmp_path / "results.json", dataset)).numbers
    assert list(numbers) == list(NUMBERS)
    assert [-1 if value is None else value for value in numbers.values()] == expected.tolist()
    assert numbers["AP"] > 0.05


def truth_of(dataset: DetectionSet) -> list[Detections]:
    return [
        Detections(record.id, record.boxes, np.ones(len(record)), record.labels, record.outlines)
        for record in dataset.records
    ]


def test_the_truth_itself_scores_one(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    folder = open_embedded("digits-coco", train=1, val=12).folder
    dataset = open_detection(folder, "val", console=QUIET)
    for evaluation in (evaluate_boxes(dataset, truth_of(dataset)), evaluate_masks(dataset, truth_of(dataset))):
        assert evaluation.numbers["AP"] == pytest.approx(1)
        assert evaluation.numbers["AR100"] == pytest.approx(1)
        for one in evaluation.classes:
            assert (one.ap, one.f1) == ((pytest.approx(1), pytest.approx(1)) if one.objects else (None, None))


def test_an_annotation_whose_id_is_0_can_be_found(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    folder = open_embedded("digits-coco", train=1, val=3).folder
    path = folder / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        entry["id"] -= 1
    path.write_text(json.dumps(content))
    dataset = open_detection(path, "val", console=QUIET)
    assert evaluate_boxes(dataset, truth_of(dataset)).numbers["AP"] == pytest.approx(1)


def test_nothing_detected_scores_0_and_nothing_there_has_no_score():
    dataset, _ = made()
    numbers = evaluate_boxes(dataset, []).numbers
    assert numbers["AP"] == numbers["AR100"] == 0
    bare = replace(dataset, records=tuple(record.objects(np.zeros(len(record), bool)) for record in dataset.records))
    assert set(evaluate_boxes(bare, truth_of(bare)).numbers.values()) == {None}


def test_classes_average_to_the_whole():
    dataset, detections = made()
    evaluation = evaluate_boxes(dataset, detections)
    for name, field in (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"), ("AR100", "ar100")):
        present = [getattr(one, field) for one in evaluation.classes if one.objects]
        assert np.mean(present) == pytest.approx(evaluation.numbers[name])
    assert evaluation.classes[-1].objects == 0
    assert evaluation.classes[-1].ap is None
    assert sum(one.objects for one in evaluation.classes) == dataset.objects
    assert np.isnan(evaluation.precision[:, :, -1]).all()
    assert (np.diff(evaluation.precision[:, :, 0], axis=1) <= 0).all()  # interpolated


def test_the_best_threshold_gives_its_f1():
    boxes = np.array([[0, 0, 20, 20], [40, 40, 90, 90]], float)
    given = np.array([[0, 0, 20, 20], [40, 40, 50, 50]], float)
    ones = np.ones(2)
    record = ImageRecord(Path("x"), 1, 100, 100, boxes, given, np.zeros(2, int), ones, ones < 0, (None, None))
    single = DetectionSet("one", "coco", (record,), ("c",), (1,))
    found = np.concatenate([boxes, boxes + 500])
    detections = [Detections(1, found, np.array([0.9, 0.4, 0.3, 0.2]), np.zeros(4, int))]
    (scores,) = evaluate_boxes(single, detections).classes
    assert scores.f1 == pytest.approx(1)
    assert scores.score == 0.4


@pytest.mark.parametrize("field", ["unknown", "twice"])
def test_detections_of_unknown_images_or_of_one_image_twice_are_an_error(field):
    dataset, detections = made()
    wrong = replace(detections[0], image_id=5) if field == "unknown" else detections[0]
    with pytest.raises(ValueError, match=field):
        evaluate_boxes(dataset, [*detections, wrong])


def test_masks_are_needed_to_evaluate_masks():
    dataset, detections = made()
    with pytest.raises(ValueError, match="no masks"):
        evaluate_masks(dataset, [replace(one, masks=None) for one in detections])
    bare = [replace(record, outlines=(None,) * len(record)) for record in dataset.records]
    with pytest.raises(UserError, match="masks requested but 0 of"):
        evaluate_masks(replace(dataset, records=tuple(bare)), detections)


def test_shards_of_images_give_what_one_process_gives():
    dataset, detections = made()
    whole = joined([detections[::2], [], detections[1::2]])
    assert [one.image_id for one in whole] == sorted(one.image_id for one in detections)
    assert evaluate_boxes(dataset, whole).numbers == evaluate_boxes(dataset, detections).numbers


def test_an_image_in_two_shards_is_no_result():
    _, detections = made()
    with pytest.raises(ValueError, match="looked at twice"):
        joined([detections[::2], [*detections[1::2], detections[0]]])


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"image_id": 1}, "image_id 1 is not in the dataset"),
        ({"category_id": 1}, "category_id 1 is not in the dataset"),
        ({"score": None}, "score None is no number"),
        ({"score": float("nan")}, "score nan is no number"),
        ({"bbox": [1, 2, 3]}, "is not x, y, width and height"),
        ({"bbox": [1, 2, -3, 4]}, "is not x, y, width and height"),
        ({"segmentation": {"size": [1, 1], "counts": "1"}}, "the mask does not decode"),
    ],
)
def test_wrong_results_are_named(tmp_path, entry, fault):
    dataset, _ = made()
    good = {"image_id": 900, "category_id": 10, "bbox": [1, 2, 3, 4], "score": 0.5}
    (tmp_path / "r.json").write_text(json.dumps([good, good | entry]))
    with pytest.raises(UserError, match=f"r.json: result 1: .*{fault}"):
        read_results(tmp_path / "r.json", dataset)
    for text in ("{", "{}", "[1]"):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(UserError, match=r"r\.json"):
            read_results(tmp_path / "r.json", dataset)


def test_results_come_back_from_their_file(tmp_path):
    dataset, detections = made()
    write_results(tmp_path / "r.json", detections, dataset.category_ids)
    for before, after in zip(
        [one for one in detections if len(one)], read_results(tmp_path / "r.json", dataset), strict=True
    ):
        assert before.image_id == after.image_id
        np.testing.assert_allclose(before.boxes, after.boxes, rtol=1e-12)
        np.testing.assert_array_equal(before.labels, after.labels)
        assert before.masks == after.masks


def test_yolo_lines_are_shares_of_the_image():
    boxes = np.array([[10, 10, 30, 20], [-5, 0, 45, 60]], float)
    lines = yolo_lines(Detections(1, boxes, np.array([0.5, 0.25]), np.array([3, 0])), 40, 50)
    assert lines == "3 0.500000 0.300000 0.500000 0.200000 0.500000\n0 0.500000 0.500000 1.000000 1.000000 0.250000\n"
    assert yolo_lines(Detections(1, boxes[:0], np.zeros(0), np.zeros(0, int)), 40, 50) == ""


def test_confusion_counts_every_object_once_and_every_detection_at_most_once():
    dataset, detections = made()
    counts = confusion_matrix(dataset, detections, score=0.2)
    np.testing.assert_array_equal(counts[:-1].sum(axis=1), dataset.class_counts())
    assert counts[:, :-1].sum() <= sum(len(one.above(0.2)) for one in detections)
    assert counts[-1, -1] == 0
    assert np.trace(counts[:-1, :-1]) > 0


def test_confusion_of_the_truth_is_diagonal():
    dataset, _ = made()
    counts = confusion_matrix(dataset, truth_of(dataset))
    np.testing.assert_array_equal(counts[:-1, :-1], np.diag(dataset.class_counts()))
    assert counts[-1].sum() == counts[:, -1].sum() == 0


def test_confusion_pairs_by_overlap_whatever_the_class_and_excuses_what_is_on_a_crowd():
    boxes = np.array([[0, 0, 20, 20], [40, 40, 60, 60], [70, 0, 100, 30]], float)
    given = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    crowd = np.array([False, False, True])
    record = ImageRecord(Path("x"), 1, 99, 99, boxes, given, np.array([0, 1, 0]), np.ones(3), crowd, (None,) * 3)
    dataset = DetectionSet("one", "coco", (record,), ("a", "b"), (1, 2))
    found = np.array([[0, 0, 20, 19], [0, 0, 20, 15], [75, 5, 80, 10], [30, 80, 40, 90]], float)
    detections = [Detections(1, found, np.array([0.5, 0.9, 0.9, 0.9]), np.array([1, 0, 0, 1]))]
    # a taken for b (the nearer one), b missed; the farther a and the one on nothing are extra, the one on a crowd not
    np.testing.assert_array_equal(confusion_matrix(dataset, detections), [[0, 1, 0], [0, 0, 1], [1, 1, 0]])
    np.testing.assert_array_equal(confusion_matrix(dataset, detections, score=0.6), [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(confusion_matrix(dataset, []), [[0, 0, 1], [0, 0, 1], [0, 0, 0]])


def test_above_keeps_the_best_first_and_only_the_classes_asked_for():
    _, detections = made()
    one = max(detections, key=len)
    kept = one.above(0.3)
    assert (np.diff(kept.scores) <= 0).all()
    assert len(kept) == (one.scores >= 0.3).sum()
    assert set(one.above(0, labels=[1]).labels.tolist()) <= {1}
    assert len(one.above(0, labels=[0, 1, 2, 3])) == len(one)
