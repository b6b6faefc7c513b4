"""How good a detector is: what it finds in all images of a set, measured as COCO does."""

from __future__ import annotations

from torch import nn

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.evaluation import Evaluation, evaluate_boxes, evaluate_masks
from vtk_cli.data.detection.results import Detections
from vtk_cli.detect.checkpoint import Detector
from vtk_cli.detect.inference import EvaluationBatches, detect
from vtk_cli.detect.network import NeckFreeViDT, ViDT
from vtk_cli.detect.report import Measured
from vtk_cli.engine.devices import Precision
from vtk_cli.engine.processes.distributed import World


def measured(
    network: Detector,
    batches: EvaluationBatches,
    *,
    world: World,
    precision: Precision,
    masks: bool,
    console: Console,
) -> Measured:
    """What `network` finds in all images, and how good that is; in every process."""
    found = detect(network, batches, device=world.device, precision=precision, masks=masks, console=console)
    evaluations = world.on_main(lambda: evaluations_of(batches.dataset, found, masks=masks))
    return Measured(batches.dataset, found, *evaluations)


def evaluations_of(
    dataset: DetectionSet, found: list[Detections], *, masks: bool
) -> tuple[Evaluation, Evaluation | None]:
    """Of boxes, and of masks where these are asked for."""
    return evaluate_boxes(dataset, found), evaluate_masks(dataset, found) if masks else None


def measures_masks(network: Detector, dataset: DetectionSet) -> bool:
    """Whether there are masks to measure: the detector says them, and every object has one."""
    return network.config.mask_coefficients > 0 and dataset.objects > 0 and dataset.outlined == dataset.objects


def detector_of(model: nn.Module) -> Detector:
    """The model that the engine's loop gives back, as what it is."""
    if not isinstance(model, (ViDT, NeckFreeViDT)):
        raise TypeError(f"a {type(model).__name__} is no detector")
    return model
