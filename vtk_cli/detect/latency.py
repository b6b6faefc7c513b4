"""`vtk detect bench`: how long a detector takes for a batch, in each precision, with and without post-processing."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.detect.checkpoint import Detector
from vtk_cli.detect.command import BenchOptions
from vtk_cli.detect.configurations import DETECTORS, detector_config
from vtk_cli.detect.inference import Inference
from vtk_cli.detect.network import build_detector, first_layers, parameter_count
from vtk_cli.detect.predictions import PaddedImages
from vtk_cli.detect.trained import open_trained
from vtk_cli.engine.devices import Precision, describe_device, resolve_device
from vtk_cli.engine.seeds import sample_rng, seed_everything
from vtk_cli.errors import ExitCode, UserError
from vtk_kernels import which

_CLASSES, _SIZE, _MICRO_SIZE = 80, 640, 128
_WARM_UP = 3
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@dataclass(frozen=True)
class Latency:
    """How long a batch takes, over all passes.

    Args:
        precision: of the forward pass.
        postprocessed: whether boxes at the original size are part of it.
        median_ms, p95_ms: milliseconds a batch.
        images_per_second: at the median.
    """

    precision: Precision
    postprocessed: bool
    median_ms: float
    p95_ms: float
    images_per_second: float


def bench_model(options: BenchOptions, console: Console) -> ExitCode:
    """Measure a detector's latency."""
    device = resolve_device(options.device)
    network, size = _network(options)
    network.to(device)
    rows = [
        latency(network, noise(options.batch_size, size), device, precision, options.rounds, boxes=with_boxes)
        for precision in _PRECISIONS
        for with_boxes in (False, True)
    ]
    title = f"{options.model}, {options.batch_size} x {size} x {size} pixels"
    console.table(
        title,
        ("precision", "post-processing", "median ms", "95th percentile ms", "images/s"),
        [
            (
                row.precision,
                "with" if row.postprocessed else "without",
                f"{row.median_ms:.2f}",
                f"{row.p95_ms:.2f}",
                f"{row.images_per_second:.1f}",
            )
            for row in rows
        ],
    )
    kernel = which("deformable_attention", device)
    console.text(
        f"{parameter_count(network) / 1e6:.2f} M weights, {options.rounds} passes, on {describe_device(device)}, torch"
        f" {version('torch')}, deformable attention by {kernel}"
    )
    console.emit(
        {
            "model": options.model,
            "size": size,
            "batch_size": options.batch_size,
            "rounds": options.rounds,
            "weights": parameter_count(network),
            "device": describe_device(device),
            "torch": version("torch"),
            "deformable_attention": kernel,
            "latency": [asdict(row) for row in rows],
        }
    )
    return ExitCode.DONE


def latency(
    network: Detector, batch: PaddedImages, device: torch.device, precision: Precision, rounds: int, *, boxes: bool
) -> Latency:
    """Time `rounds` passes of a batch, after a few that do not count.

    Args:
        network: on `device`.
        batch: the images.
        device: where the network is.
        precision: of the forward pass.
        rounds: passes.
        boxes: with the detections brought to the host.
    """
    look = Inference(network, device, precision)
    batch = batch.to(device)
    sizes = [(batch.images.shape[2], batch.images.shape[3])] * len(batch.images)
    took = []
    for round_ in range(_WARM_UP + rounds):
        start = time.perf_counter()
        if boxes:
            for one in look(batch, sizes):
                one.cpu()
        else:
            look.final(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if round_ >= _WARM_UP:
            took.append(1e3 * (time.perf_counter() - start))
    median, p95 = (float(value) for value in np.percentile(took, (50, 95)))
    return Latency(precision, boxes, median, p95, 1e3 * len(sizes) / median)


def noise(batch_size: int, size: int) -> PaddedImages:
    """Square images of noise without padding."""
    with sample_rng(0):
        images = torch.randn(batch_size, 3, size, size)
    mask = torch.zeros(batch_size, size, size, dtype=torch.bool)
    return PaddedImages(images, mask, torch.full((batch_size, 2), size))


def _network(options: BenchOptions) -> tuple[Detector, int]:
    """The detector and the size of its images."""
    if options.model in DETECTORS and not Path(options.model).exists():
        seed_everything(0)
        network = build_detector(detector_config(options.model, _CLASSES).box_only()).eval()
        if options.dec_layers is not None:
            network = first_layers(network, options.dec_layers).eval()
        own = _MICRO_SIZE if options.model.endswith("micro") else _SIZE
        return network, options.size or own
    if not Path(options.model).exists():
        fix = f"name one, or one of {', '.join(DETECTORS)}"
        raise UserError("no such run folder, weight file or detector", options.model, fix)
    trained = open_trained(options.model, options.which, dec_layers=options.dec_layers)
    return trained.network, options.size or trained.preprocessing.size
