"""`vtk bench detect`: what the fused deformable attention brings to training and inference, and COCO's evaluation."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.evaluation import evaluate_boxes
from vtk_cli.data.detection.results import Detections, results_of
from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.inference import Inference
from vtk_cli.detect.latency import noise
from vtk_cli.detect.network import build_detector
from vtk_cli.detect.options import SCENES, TrainOptions
from vtk_cli.detect.preparation import open_data, prepare
from vtk_cli.detect.recipes import RECIPES
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.loss_meter import LossMeter
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.engine.update import Updater
from vtk_cli.reports.evidence import BenchRow
from vtk_kernels import which
from vtk_kernels.dispatch import VARIABLE

STEP_TARGET = 1.5
"""The time of a training step with the reference over that with the kernel."""
_CLASSES, _DETECTIONS, _OBJECTS = 80, 100, 7
"""COCO's classes, the detections an image that count, and about as many objects as a COCO image has."""


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[BenchRow]:
    """Time all of it, side by side and in turns; the medians."""
    rounds, size = (1, 64) if smallest else (15, 640)
    rows = [
        _kernel_row(
            "a training step of vidt-micro, 16 scenes of 128 pixels",
            _step(device, console),
            rounds,
            device,
            STEP_TARGET,
        ),
        _kernel_row(
            f"inference of vidt-nano, an image of {size} pixels",
            _inference("vidt-nano", size, device),
            max(1, rounds // 3),
            device,
            None,
        ),
    ]
    return [*rows, _evaluation_row(50 if smallest else 5000, device)]


def _kernel_row(
    name: str, work: Callable[[], None], rounds: int, device: torch.device, target: float | None
) -> BenchRow:
    """The work with the kernel that this device has, and with the plain torch reference."""
    kernel = which("deformable_attention", device)

    def timed(backend: str) -> float:
        with _forced(backend):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter() - start

    timed(kernel), timed("reference")
    times = [(timed(kernel), timed("reference")) for _ in range(rounds)]
    return BenchRow(
        name=name,
        ours=median(one for one, _ in times),
        theirs=median(other for _, other in times),
        peer=f"the same with {VARIABLE}=reference",
        target=target,
        device=describe_device(device),
        versions={"torch": version("torch")},
        note=f"deformable attention by {kernel}, fp32, median of {rounds}",
    )


@contextmanager
def _forced(backend: str) -> Iterator[None]:
    """Operators run on this backend inside."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = backend
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _step(device: torch.device, console: Console) -> Callable[[], None]:
    """A training step on a batch that is there already."""
    options = TrainOptions(**{**RECIPES["digits"], "data": SCENES, "workers": 0})
    quiet = Console(quiet=True)
    console.detail(f"opening {SCENES}")
    training = prepare(options, open_data(options, quiet), World(0, 1, 0, device), quiet)
    updater = Updater(
        training.network,
        training.objective,
        training.optimizer,
        training.scheduler,
        clip_norm=options.clip_norm,
        ema_decay=None,
        precision="fp32",
        seed=0,
        world=training.world,
    )
    batch = next(iter(training.batches.epoch(0, 0)))
    updater.model.train()
    meter = LossMeter(training.world)

    def step() -> None:
        updater([batch], 0, 0, meter)
        meter.read()

    return step


def _inference(name: str, size: int, device: torch.device) -> Callable[[], None]:
    """A forward pass of one image with its post-processing."""
    seed_everything(0)
    look = Inference(build_detector(detector_config(name, _CLASSES)).to(device), device)
    batch = noise(1, size).to(device)

    def work() -> None:
        look(batch, [(size, size)])[0].cpu()

    return work


def _evaluation_row(images: int, device: torch.device) -> BenchRow:
    """COCO's evaluation of boxes, here and by pycocotools as it comes."""
    dataset, found = synthetic(images)
    start = time.perf_counter()
    ours = evaluate_boxes(dataset, found).numbers["AP"]
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    coco, results = _as_coco(dataset), results_of(found, dataset.category_ids)
    start = time.perf_counter()
    theirs = _by_pycocotools(coco, results)
    other = time.perf_counter() - start
    return BenchRow(
        name=f"COCO evaluation, {images:,} images with {_DETECTIONS} detections",
        ours=took,
        theirs=other,
        peer="pycocotools, loadRes and COCOeval",
        target=None,
        device=describe_device(device),
        versions={name: version(name) for name in ("pycocotools", "numpy")},
        note=f"AP {ours:.6f} and {theirs:.6f}; {peak:.1f} GB at most until the end of ours (aims: 120 s, 4 GB)",
    )


def synthetic(images: int, *, detections: int = _DETECTIONS, seed: int = 0) -> tuple[DetectionSet, list[Detections]]:
    """A dataset of COCO's measure without image files, and detections of which some lie near an object.

    Args:
        images: how many.
        detections: of each image.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    records, found = [], []
    for identity in range(1, images + 1):
        count = int(rng.integers(1, 2 * _OBJECTS))
        boxes = _boxes(rng, count)
        labels = rng.integers(0, _CLASSES, count)
        extents = boxes[:, 2:] - boxes[:, :2]
        given = np.concatenate([boxes[:, :2], extents], axis=1)
        record = ImageRecord(
            file=Path(f"{identity}.jpg"),
            id=identity,
            width=640,
            height=480,
            boxes=boxes,
            given=given,
            labels=labels,
            area=extents.prod(axis=1),
            crowd=np.zeros(count, np.bool_),
            outlines=(None,) * count,
        )
        near = boxes + rng.normal(0, 5, boxes.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        others = detections - min(count, detections)
        found.append(
            Detections(
                identity,
                np.concatenate([near[:detections], _boxes(rng, others)]),
                rng.random(detections),
                np.concatenate([labels[:detections], rng.integers(0, _CLASSES, others)]),
            )
        )
        records.append(record)
    names = tuple(f"class {label}" for label in range(_CLASSES))
    return DetectionSet("synthetic", "coco", tuple(records), names, tuple(range(1, _CLASSES + 1))), found


def _boxes(rng: np.random.Generator, count: int) -> Any:
    """float64 (count, 4) within 640 x 480, small and large ones."""
    extent = np.array([640.0, 480.0])
    side = extent * rng.uniform(0.02, 0.6, (count, 2))
    corner = rng.random((count, 2)) * (extent - side)
    return np.concatenate([corner, corner + side], axis=1)


def _as_coco(dataset: DetectionSet) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for record in dataset.records:
        for box, label, area in zip(record.given.tolist(), record.labels, record.area.tolist(), strict=True):
            entry = {"image_id": record.id, "category_id": dataset.category_ids[label], "bbox": box, "area": area}
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **entry})
    return {
        "images": [{"id": one.id, "width": one.width, "height": one.height} for one in dataset.records],
        "annotations": annotations,
        "categories": [{"id": identity} for identity in dataset.category_ids],
    }


def _by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])
