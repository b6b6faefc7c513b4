"""From options to everything a training needs: images, detector, losses, batches, optimiser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet, check_same_classes, open_detection
from vtk_cli.data.detection.opening import located, splits_of
from vtk_cli.data.detection.records import require_objects, require_outlines
from vtk_cli.detect.backbone_weights import backbone_file, load_backbone
from vtk_cli.detect.checkpoint import Detector, SavedDetector, load_detector, read_detector
from vtk_cli.detect.configurations import BACKBONES, TIMM_BACKBONES, Classes, DetectorConfig, detector_config
from vtk_cli.detect.inference import EvaluationBatches
from vtk_cli.detect.network import build_detector
from vtk_cli.detect.objective import Objective
from vtk_cli.detect.official_keys import is_official
from vtk_cli.detect.optimisation import CosineRate, build_optimizer, parameter_groups
from vtk_cli.detect.options import DEFAULT_MODEL, IMAGENET, NONE, SCENES_MODEL, TrainOptions
from vtk_cli.detect.preprocessing import Preprocessing
from vtk_cli.detect.recipes import RECIPES
from vtk_cli.detect.samples import Mixing, TrainingImages, Transform
from vtk_cli.detect.trained import open_trained, weights_file
from vtk_cli.detect.transforms import Letterbox, ModernTraining, PaperTraining, Stretch
from vtk_cli.engine.batches import Batches, LoaderBatches
from vtk_cli.engine.distributed import World
from vtk_cli.engine.epochs import EqualEpochs, PlainAtLast, equal_epochs
from vtk_cli.engine.loop import Plan
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import UserError
from vtk_cli.models.names import file_metadata
from vtk_cli.models.weights import read_state_dict

_MASK_COEFFICIENTS = 256
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
        name: of the detector.
        network: on the device.
        started_from: its first weights, in words.
        preprocessing: of the images in evaluation.
        objective: the loss.
        batches: of the training images.
        validation: batches of the validation images; None where there are none.
        optimizer, scheduler, plan: of the engine's loop.
        world: this process among the others.
    """

    data: Data
    name: str
    network: Detector
    started_from: str
    preprocessing: Preprocessing
    objective: Objective
    batches: Batches
    validation: EvaluationBatches | None
    optimizer: torch.optim.Optimizer
    scheduler: CosineRate
    plan: Plan
    world: World

    @property
    def config(self) -> DetectorConfig:
        """What is trained."""
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
    name, network, started_from = _starting_detector(options, data, console)
    network.to(world.device)
    preprocessing = Preprocessing(options.resize, options.size)
    batches, epochs = _batches(options, data.train, preprocessing, network.config, world)
    updates = -(-batches.steps_per_epoch // options.accumulate) * epochs
    optimizer = build_optimizer(parameter_groups(network, options.weight_decay, options.decay_of), options.lr)
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
        name,
        network,
        started_from,
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


def _starting_detector(options: TrainOptions, data: Data, console: Console) -> tuple[str, Detector, str]:
    """Name, network, and what it starts from in words."""
    file = None if options.weights in {None, NONE, IMAGENET} else weights_file(str(options.weights))
    saved = read_detector(file) if file is not None and _holds_detector(file) else None
    name, config = _configuration(options, data.train, saved, console)
    network = build_detector(config, recompute=options.grad_checkpointing)
    if saved is not None:
        notes = load_detector(network, saved, data.classes, reset_head=options.reset_head)
        for note in notes:
            console.note(f"{saved.path}: {note}")
        return name, network, str(saved.path)
    has_published = config.backbone.name in TIMM_BACKBONES
    is_micro = config.backbone.name == BACKBONES["micro"].name
    if file is None and options.weights is None and not (has_published or is_micro):
        console.note(
            f"timm publishes no weights for {config.backbone.name}: it starts from nothing; see --weights FILE"
        )
    if file is None and (options.weights == NONE or (options.weights is None and not has_published)):
        return name, network, "random weights"
    if file is None:
        found = backbone_file(config.backbone, offline=False)
        load_backbone(network.backbone, found.path)
        return name, network, f"ImageNet weights of its backbone ({found.source})"
    load_backbone(network.backbone, file)
    if options.reset_head:  # as the recipe for weights of a detector says
        console.note(f"{file}: holds a backbone alone, so all else is new; --recipe paper is the training from there")
    return name, network, f"ImageNet weights of its backbone ({file})"


def _holds_detector(file: Path) -> bool:
    return "detector" in file_metadata(file) or is_official(read_state_dict(file))


def _configuration(
    options: TrainOptions, train: DetectionSet, saved: SavedDetector | None, console: Console
) -> tuple[str, DetectorConfig]:
    changes: dict[str, Any] = {}
    for field in ("queries", "dropout"):
        if getattr(options, field) is not None:
            changes[field] = getattr(options, field)
    classes = len(train.class_names)
    if options.model is None and saved is not None:
        name = f"the detector of {saved.path.name}"
        config = replace(saved.config, classes=classes, token_offset=1, **changes)
    else:
        name = options.model or (SCENES_MODEL if options.on_scenes else DEFAULT_MODEL)
        config = detector_config(name, classes, **changes)
    if options.drop_path is not None:
        config = replace(config, backbone=replace(config.backbone, drop_path=options.drop_path))
    config = _with_masks(options, config, train, console)
    if train.most_objects > config.queries:
        what = f"an image has {train.most_objects} objects, and the detector {config.queries} DET tokens"
        console.warn(f"{train.name}: {what}: it learns no more objects an image than that; give --queries")
    return name, config


def _with_masks(options: TrainOptions, config: DetectorConfig, train: DetectionSet, console: Console) -> DetectorConfig:
    """The configuration with a head for masks or without, as the options and the outlines of the data say."""
    outlined = train.outlined == train.objects
    if options.masks == "on":
        if config.neck == "none":
            raise UserError("a detector without a decoder learns no masks", "--masks on", "use vidt- or vidt-plus-SIZE")
        require_outlines(train)
        config = replace(config, mask_coefficients=config.mask_coefficients or _MASK_COEFFICIENTS)
    elif options.masks == "off" or not outlined:
        if config.mask_coefficients and options.masks == "auto":
            what = f"{train.outlined} of {train.objects} objects have an outline"
            console.note(f"{train.name}: {what}: boxes are learned, no masks")
        config = replace(config, mask_coefficients=0)
    if config.token_labels and not outlined:
        console.warn(f"{train.name}: where an object has no outline, the patches of its whole box learn its class")
    return config


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
        batch_size=max(1, options.batch_size // world.size),
        workers=_workers(options),
        world=world,
        pin_memory=world.device.type == "cuda",
    )


def _workers(options: TrainOptions) -> int:
    """Scenes are small, and read faster than they are sent between processes."""
    return 0 if options.workers is None and options.on_scenes else worker_count(options.workers)
