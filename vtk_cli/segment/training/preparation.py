"""From options to everything a training of a teacher or a student needs: network, loss, batches, optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.engine.batches import Batches, LoaderBatches
from vtk_cli.engine.epochs import EqualEpochs, equal_epochs
from vtk_cli.engine.loop import Plan
from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.engine.workers import worker_count
from vtk_cli.segment.labels.inputs import classes_of
from vtk_cli.segment.options import DEFAULT_MODEL, NONE, SCENES_MODEL, SegmentOptions
from vtk_cli.segment.solov2.backbone import MicroBackbone, backbone_file, load_backbone
from vtk_cli.segment.solov2.checkpoint import SavedSegmenter, read_segmenter, start_from
from vtk_cli.segment.solov2.configurations import MICRO_BACKBONE, Role, SegmenterConfig, segmenter_config
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.targets import one_mask_a_cell
from vtk_cli.segment.training.augmentation import augmentation
from vtk_cli.segment.training.objective import SegmentObjective, as_published
from vtk_cli.segment.training.samples import Collate, TrainingImages
from vtk_cli.segment.training.schedules import Length, Rate, one_cycle, parameter_groups, stepwise

_PUBLISHED_BATCH, _SAFE_NORM = 16, 35.0


@dataclass(frozen=True, eq=False)
class Training:
    """Everything a training needs.

    Args:
        role: whose it is.
        network: on the device.
        started_from: its first weights, in words.
        objective: the loss.
        batches: of the images.
        optimizer, scheduler, plan: of the engine's loop.
        snapshots: after how many epochs a state is kept.
        updates: of the whole training.
        world: this process among the others.
    """

    role: Role
    network: SOLOv2
    started_from: str
    objective: SegmentObjective
    batches: Batches
    optimizer: torch.optim.Optimizer
    scheduler: Rate
    plan: Plan
    snapshots: tuple[int, ...]
    updates: int
    world: World

    @property
    def config(self) -> SegmenterConfig:
        """What is trained."""
        return self.network.config


def prepare(
    options: SegmentOptions,
    dataset: DetectionSet,
    role: Role,
    length: Length,
    *,
    world: World,
    console: Console,
    start: Path | None = None,
    lost: Mapping[int, Tensor] | None = None,
    ema_decay: float | None = None,
) -> Training:
    """Build everything; the same seed builds the same.

    Args:
        options: of the job.
        dataset: the images to learn from.
        role: whose training it is.
        length: of it.
        world: this process among the others.
        console: told what the network starts from.
        start: weights to start from in place of those that the options name.
        lost: image id -> clicks (u, 2) whose surroundings are not judged.
        ema_decay: of the average of the weights; None keeps none.

    Raises:
        UserError: options, data and weights do not go together.
    """
    seed_everything(options.seed)
    network, started_from = starting_network(options, dataset, role, start)
    console.note(f"{role}: {network.config.name}, from {started_from}, {length.updates:,} updates")
    if options.sync_bn and world.size > 1:
        synchronise_batch_norm(network)
    network.to(world.device)
    batches: Batches = LoaderBatches(
        TrainingImages(dataset, augmentation(options.augment, options.size), lost),
        options.batch_size,
        options.seed,
        0 if options.workers is None and options.on_scenes else worker_count(options.workers),
        world,
        collate=Collate(network.config.padding_multiple),
        pin_memory=False,
    )
    epochs, each = equal_epochs(length.updates, batches.steps_per_epoch)
    batches = EqualEpochs(batches, each)
    total = epochs * each
    optimizer, rate = _optimizer(options, network, role)
    warmup = options.teacher_warmup if role == "teacher" else options.student_warmup
    shape = one_cycle(total) if options.schedule == "one-cycle" else stepwise(replace(length, updates=total), warmup)
    return Training(
        role,
        network,
        started_from,
        SegmentObjective(network.config, as_published if options.official_quirks else one_mask_a_cell, world),
        batches,
        optimizer,
        Rate(optimizer, rate, shape),
        Plan(
            epochs=epochs,
            clip_norm=_clip_norm(options),
            ema_decay=ema_decay,
            precision=options.precision,
            checkpoint_seconds=options.checkpoint_seconds,
            skip_nonfinite=options.skip_nonfinite or 0,
            evaluate_epochs=max(1, epochs // options.evaluations),
        ),
        tuple(max(1, min(epochs, round(share * epochs))) for share in length.snapshots),
        total,
        world,
    )


def starting_network(
    options: SegmentOptions, dataset: DetectionSet, role: Role, start: Path | None = None
) -> tuple[SOLOv2, str]:
    """The network before its training, on the CPU, and what it starts from in words.

    Raises:
        UserError: there is no such network, or the weights do not fit.
    """
    file = start if start is not None else options.weights_file
    saved = None if file is None else read_segmenter(file, role)
    config = _configuration(options, len(dataset.class_names), role, saved)
    network = SOLOv2(config)
    if saved is not None:
        start_from(network, classes_of(dataset), saved, reset_head=options.reset_head and start is None)
        return network, str(saved.path)
    backbone = network.backbone
    if isinstance(backbone, MicroBackbone) or options.weights == NONE:
        return network, "random weights"
    found = backbone_file(config, offline=False)
    load_backbone(backbone, config.backbone, found.path)
    return network, f"ImageNet weights of its backbone ({found.source})"


def _configuration(options: SegmentOptions, classes: int, role: Role, saved: SavedSegmenter | None) -> SegmenterConfig:
    sigma = options.sigma if role == "teacher" else 0.2
    name = options.model or (SCENES_MODEL if options.on_scenes else DEFAULT_MODEL)
    if options.model is None and saved is not None:
        name = saved.config.name
    config = segmenter_config(name, classes, role, sigma=sigma)
    if saved is not None:
        return replace(config, stride_in_1x1=saved.config.stride_in_1x1)
    # A random stem that does not learn, and statistics that nobody took, would be of no use.
    return replace(config, frozen=config.frozen and options.weights != NONE and config.backbone != MICRO_BACKBONE)


def _optimizer(options: SegmentOptions, network: SOLOv2, role: Role) -> tuple[torch.optim.Optimizer, float]:
    """The optimiser, and its highest learning rate: that of SGD in proportion to a batch smaller than the published."""
    rate = options.teacher_lr if role == "teacher" else options.student_lr
    groups = parameter_groups(network, options.weight_decay)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate), rate
    rate *= min(1.0, options.batch_size / _PUBLISHED_BATCH)
    return torch.optim.SGD(groups, lr=rate, momentum=0.9), rate


def _clip_norm(options: SegmentOptions) -> float | None:
    """A rate of 0.05 is fragile with small batches and in half precision."""
    fragile = options.batch_size < _PUBLISHED_BATCH or options.precision == "fp16"
    return _SAFE_NORM if options.clip_norm is None and fragile else options.clip_norm
