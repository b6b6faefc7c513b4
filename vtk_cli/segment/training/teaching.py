"""The two trainings of SOLOv2: the teacher on fully labelled images, and the student on all (arXiv 2303.15062)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.evaluation import Evaluation, evaluate_masks
from vtk_cli.data.detection.results import Detections
from vtk_cli.data.points import Classes
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.metrics import Row
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.engine.workers import worker_count
from vtk_cli.models.best_weights import BestWeights
from vtk_cli.segment.labels.points import prompts_of
from vtk_cli.segment.looking import (
    PUBLISHED_POINTS,
    Looker,
    clicked_centroids,
    found_at_clicks,
    found_by_itself,
    normal_settings,
)
from vtk_cli.segment.options import SegmentOptions
from vtk_cli.segment.rounds import snapshot
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.trained import save_trained
from vtk_cli.segment.training.augmentation import Resize
from vtk_cli.segment.training.preparation import Training

CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"


@dataclass(frozen=True, eq=False)
class Measured:
    """What a network found in images by itself, and how good that is."""

    dataset: DetectionSet
    detections: list[Detections]
    masks: Evaluation

    @property
    def numbers(self) -> dict[str, float | None]:
        """COCO's, of masks."""
        return self.masks.numbers


def train(
    training: Training,
    folder: Path,
    options: SegmentOptions,
    classes: Classes,
    *,
    val: DetectionSet | None,
    console: Console,
) -> FitResult:
    """Train, or go on with a training, and save the weights: of the end, those that did best, and the snapshots.

    The best of a teacher are those whose masks at clicks are best, for that is its task; of a student, whose AP is.

    Args:
        training: what is trained.
        folder: of the stage.
        options: of the job.
        classes: of the labels.
        val: images to evaluate on, as often as the options say.
        console: shows the progress.

    Raises:
        JobError: the loss is not finite, or the disk is full.
    """

    def save(path: Path, model: nn.Module, note: Mapping[str, str] | None = None) -> None:
        config, size = training.config, options.size
        save_trained(path, model.state_dict(), config=config, classes=classes, size=size, role=training.role, note=note)

    best = BestWeights(folder / BEST, "pseudo_ap" if training.role == "teacher" else "ap", save)

    def after_epoch(row: Row, model: nn.Module, averaged: nn.Module | None) -> None:
        for number, epoch in enumerate(training.snapshots, 1):
            if row["epoch"] == epoch:
                save(folder / snapshot(number), model)
        best(row, model, averaged)

    result = fit(
        training.network,
        training.objective,
        training.batches,
        training.optimizer,
        plan=training.plan,
        device=training.world.device,
        seed=options.seed,
        scheduler=training.scheduler,
        evaluate=None if val is None else _evaluation(training, options, val),
        after_epoch=after_epoch,
        checkpoints=folder / CHECKPOINTS,
        metrics=folder / METRICS,
        console=console,
        description=f"training the {training.role}",
        world=training.world,
    )

    def conclude() -> None:
        save(folder / LAST, result.model)
        if result.ema is not None:
            save(folder / EMA, result.ema)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)

    training.world.on_main(conclude)
    return result


def measured(looker: Looker, dataset: DetectionSet, *, teacher: bool, world: World, console: Console) -> Measured:
    """What a network finds in images by itself, compared with the truth; in every process."""
    return compared(
        dataset,
        found_by_itself(looker, dataset, normal_settings(teacher=teacher), world=world, console=console),
        world,
    )


def compared(dataset: DetectionSet, found: list[Detections], world: World) -> Measured:
    """What was found in all images, compared with the truth on the first process; in every process."""
    return Measured(dataset, found, world.on_main(lambda: evaluate_masks(dataset, found)))


def _evaluation(
    training: Training, options: SegmentOptions, val: DetectionSet
) -> Callable[[nn.Module], dict[str, float]]:
    """`ap` of what the network finds by itself; of a teacher also `pseudo_ap`, with a click on every centroid."""
    workers = 0 if options.workers is None and options.on_scenes else worker_count(options.workers)
    quiet, world = Console(quiet=True), training.world

    def evaluate(model: nn.Module) -> dict[str, float]:
        if not isinstance(model, SOLOv2):
            raise TypeError(f"a {type(model).__name__} is no segmenter")
        looker = Looker(model, Resize(options.size), world.device, options.precision, workers)
        teacher = training.role == "teacher"
        found = {"": measured(looker, val, teacher=teacher, world=world, console=quiet).masks}
        if teacher:
            points = clicked_centroids(val)
            prompts = prompts_of(points)
            at_clicks = found_at_clicks(looker, points, prompts, PUBLISHED_POINTS, world=world, console=quiet)
            found["pseudo_"] = compared(val, at_clicks, world).masks
        return {
            f"{prefix}{name.lower()}": value
            for prefix, evaluation in found.items()
            for name, value in evaluation.numbers.items()
            if value is not None and name in {"AP", "AP50"}
        }

    return torch.no_grad()(evaluate)
