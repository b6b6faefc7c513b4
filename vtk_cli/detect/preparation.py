"""From options to everything a training needs: images, detector, losses, batches, optimiser."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet, check_same_classes, open_detection
from vtk_cli.data.detection.opening import located, splits_of
from vtk_cli.data.detection.records import require_objects
from vtk_cli.detect.checkpoint import Detector
from vtk_cli.detect.configurations import Classes, DetectorConfig
from vtk_cli.detect.freed_memory import keep_freed_memory
from vtk_cli.detect.inference import EvaluationBatches
from vtk_cli.detect.objective import Objective
from vtk_cli.detect.optimisation import CosineRate, build_optimizer, parameter_groups
from vtk_cli.detect.options import TrainOptions
from vtk_cli.detect.preprocessing import Preprocessing
from vtk_cli.detect.recipes import RECIPES
from vtk_cli.detect.samples import Mixing, TrainingImages, Transform
from vtk_cli.detect.starting import Start, starting_detector
from vtk_cli.detect.trained import open_trained
from vtk_cli.detect.transforms import Letterbox, ModernTraining, PaperTraining, Stretch
from vtk_cli.engine.batches import Batches, LoaderBatches
from vtk_cli.engine.epochs import EqualEpochs, PlainAtLast, equal_epochs
from vtk_cli.engine.loop import Plan
from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import UserError

_LOOKED_AT = 8
"""Images that are evaluated at a time, however many processes there are, so that all numbers of them find the same."""
_MOST_WARMUP = 0.1
"""Of a training's updates, so many at most are the warm-up that a recipe brings along."""


@dataclass(frozen=True, eq=False)
class Data:
    """What is trained on, and what is measured on: None where there is nothing."""

    train: DetectionSet
    val: DetectionSet | None

    @property
    def classes(self) -> Classes:
        """What the labels mean."""
        return Classes(self.train.class_names, self.train.category_ids)


@dataclass(frozen=True, eq=False)
class Training:
    """Everything a training needs.

    Args:
        data: images.
        start: the detector, on the device, and what it starts from.
        preprocessing: of the images in evaluation.
        objective: the loss.
        batches: of the training images.
        validation: batches of the validation images; None where there are none.
        optimizer, scheduler, plan: of the engine's loop.
        world: this process among the others.
    """

    data: Data
    start: Start
    preprocessing: Preprocessing
    objective: Objective
    batches: Batches
    validation: EvaluationBatches | None
    optimizer: torch.optim.Optimizer
    scheduler: CosineRate
    plan: Plan
    world: World

    @property
    def name(self) -> str:
        """Of the detector."""
        return self.start.name

    @property
    def network(self) -> Detector:
        """What is trained."""
        return self.start.network

    @property
    def started_from(self) -> str:
        """Its first weights, in words."""
        return self.start.source

    @property
    def config(self) -> DetectorConfig:
        """What it is."""
        config: DetectorConfig = self.network.config
        return config

    @property
    def updates(self) -> int:
        """Of the whole training."""
        return self.scheduler.updates


def open_data(options: TrainOptions, console: Console) -> Data:
    """The images that the options name.

    Raises:
        UserError: something in them is wrong, there is nothing to learn, or the splits have other classes.
    """
    train = open_detection(options.data, "train", skip_bad=options.skip_bad, console=console)
    if options.images is not None:
        train = train.first(options.images)
    require_objects(train)
    source = options.val
    if source is None and {"val", "test"} & {*splits_of(located(options.data, console))}:
        source = options.data
    if source is None:
        console.warn(f"{train.name}: has no val split, so nothing is evaluated; name one with --val")
        return Data(train, None)
    val = open_detection(source, "val", skip_bad=options.skip_bad, console=console)
    check_same_classes(train, val)
    return Data(train, val)


def prepare(options: TrainOptions, data: Data, world: World, console: Console) -> Training:
    """Build everything; the same seed builds the same.

    Raises:
        UserError: options, data and weights do not go together.
    """
    seed_everything(options.seed)
    start = starting_detector(options, data.train, data.classes, console)
    network = start.network
    if options.sync_bn and world.size > 1:
        synchronise_batch_norm(network)
    network.to(world.device)
    if world.device.type == "cpu":
        keep_freed_memory()
    preprocessing = Preprocessing(options.resize, options.size)
    batches, epochs = _batches(options, data.train, preprocessing, network.config, world)
    updates = -(-batches.steps_per_epoch // options.accumulate) * epochs
    groups = parameter_groups(
        network, options.weight_decay, options.decay_of, slower=start.trained, share=start.backbone_lr
    )
    optimizer = build_optimizer(groups, options.lr)
    scheduler = CosineRate(
        optimizer,
        options.lr,
        options.min_lr,
        epochs,
        updates,
        _warmup(options, updates, console),
        options.schedule_on == "updates",
    )
    return Training(
        data,
        start,
        preprocessing,
        _objective(options, network.config, world),
        batches,
        _validation(options, data, preprocessing, world),
        optimizer,
        scheduler,
        Plan(
            epochs=epochs,
            accumulate=options.accumulate,
            clip_norm=options.clip_norm,
            ema_decay=options.ema_decay,
            precision=options.precision,
            checkpoint_seconds=options.checkpoint_seconds,
            skip_nonfinite=options.skip_nonfinite or 0,
            evaluate_epochs=options.evaluate_epochs,
        ),
        world,
    )


def training_images(
    options: TrainOptions, train: DetectionSet, preprocessing: Preprocessing, *, masks: bool, plain: bool = False
) -> TrainingImages:
    """The training images as the network sees them; `plain` without mosaic and mixup."""
    mixing = None
    if options.mixes and not plain:
        mixing = Mixing(options.size, options.mosaic, options.mixup)
    return TrainingImages(train, _augmentation(options, preprocessing), masks=masks, mixing=mixing)


def _batches(
    options: TrainOptions, train: DetectionSet, preprocessing: Preprocessing, config: DetectorConfig, world: World
) -> tuple[Batches, int]:
    """The batches and the number of epochs."""
    masks = config.token_labels or config.mask_coefficients > 0
    workers = _workers(options)

    def loader(*, plain: bool) -> Batches:
        return LoaderBatches(
            training_images(options, train, preprocessing, masks=masks, plain=plain),
            options.batch_size,
            options.seed,
            workers,
            world,
            collate=preprocessing.collate,
            pin_memory=world.device.type == "cuda",
        )

    batches, epochs = loader(plain=False), options.epochs
    if options.mixes and options.plain_epochs:
        passes = options.epochs
        if options.steps is not None:
            passes = -(-options.steps * options.accumulate // batches.steps_per_epoch)
        switch = round(passes * (1 - options.plain_epochs))
        batches = PlainAtLast(batches, loader(plain=True), switch)
    if options.steps is not None:
        epochs, length = equal_epochs(options.steps, max(1, batches.steps_per_epoch // options.accumulate))
        batches = EqualEpochs(batches, length * options.accumulate)
    return batches, epochs


def _augmentation(options: TrainOptions, preprocessing: Preprocessing) -> Transform:
    if options.augment == "paper":
        return PaperTraining.scaled(options.size)
    if options.augment == "modern":
        return ModernTraining(Letterbox(options.size) if options.resize == "letterbox" else Stretch(options.size))
    return preprocessing.transform


def _warmup(options: TrainOptions, updates: int, console: Console) -> int:
    """The updates of warm-up: those of the recipe, but no more than a tenth of a short training; or those given.

    Raises:
        UserError: those given leave no time for anything else.
    """
    wanted = options.warmup_steps
    most = int(updates * _MOST_WARMUP)
    if wanted > most and wanted == RECIPES.get(options.recipe or "", {}).get("warmup_steps"):
        console.note(f"{most:,} updates of warm-up, a tenth of {updates:,}; the recipe's {wanted:,} are too many")
        return most
    if wanted >= updates:
        what = f"{wanted} updates of warm-up leave nothing of {updates}"
        raise UserError(what, "--warmup-steps", "give fewer, or train longer")
    return wanted


def _objective(options: TrainOptions, config: DetectorConfig, world: World) -> Objective:
    teacher = None
    if options.teacher is not None:
        teacher = open_trained(options.teacher).network.to(world.device)
    return Objective(
        config,
        world,
        iou_target_grad=options.iou_target_grad,
        teacher=teacher,
        distil_weight=options.distil_weight,
        distil_root=options.distil_root,
    )


def _validation(
    options: TrainOptions, data: Data, preprocessing: Preprocessing, world: World
) -> EvaluationBatches | None:
    if data.val is None:
        return None
    return EvaluationBatches(
        data.val,
        preprocessing,
        batch_size=min(options.batch_size, _LOOKED_AT),
        workers=_workers(options),
        world=world,
        pin_memory=world.device.type == "cuda",
    )


def _workers(options: TrainOptions) -> int:
    """Scenes are small, and read faster than they are sent between processes."""
    return 0 if options.workers is None and options.on_scenes else worker_count(options.workers)
