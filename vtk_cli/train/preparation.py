"""From options to everything a training needs: images, points, network, objective, batches, optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from vtk_cli.console import Console
from vtk_cli.data.augmentation import Augmentation, train_transform
from vtk_cli.data.augmented import AugmentedImages, WatchedBatches
from vtk_cli.data.byproducts import Byproducts, PointTargets, match_byproducts, read_byproducts
from vtk_cli.data.classification import EvalSet, ImageSource, Splits, open_classification
from vtk_cli.data.evaluation_batches import EvaluationBatches, evaluation_transform
from vtk_cli.engine.batches import LoaderBatches
from vtk_cli.engine.loop import Plan, Scheduler
from vtk_cli.engine.optimisation import LearningRates, build_optimizer, build_schedule, parameter_groups
from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import UserError
from vtk_cli.models.zoo import Network, PixelConfig
from vtk_cli.train.classifier import Classifier
from vtk_cli.train.eval_sets import open_sets
from vtk_cli.train.image_options import NO_POLICY
from vtk_cli.train.input_check import require_batch, require_size
from vtk_cli.train.mixing import Mixer
from vtk_cli.train.network_to_train import network_to_train
from vtk_cli.train.objective import Objective, PointTerm, SubTerm
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.sub import choose_sub, parse_ratio


@dataclass(frozen=True, eq=False)
class Data:
    """What is trained on.

    Args:
        splits: training and validation images.
        byproducts: what was read of them; None without.
        points: of the training images; None without byproducts.
        val_points: of the validation images; None where the byproducts do not know them.
        sets: other sets to evaluate on at the end, by name.
    """

    splits: Splits
    byproducts: Byproducts | None
    points: PointTargets | None
    val_points: PointTargets | None
    sets: Mapping[str, EvalSet] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Training:
    """Everything a training needs.

    Args:
        data: images and points.
        network: what is trained, with its preprocessing in training.
        classifier: `network` with its point head and sub-model, on the device.
        objective: the loss.
        batches: of the training images.
        validation: batches of the validation images; None where there are none.
        optimizer, scheduler, plan: of the engine's loop.
        eval_pixels: the preprocessing in evaluation.
        world: this process among the others.
    """

    data: Data
    network: Network
    classifier: Classifier
    objective: Objective
    batches: WatchedBatches
    validation: EvaluationBatches | None
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    plan: Plan
    eval_pixels: PixelConfig
    world: World


def open_data(options: TrainOptions, console: Console) -> Data:
    """The images that the options name, and the points on them.

    Raises:
        UserError: images, labels or byproducts are not what they must be.
    """
    splits = open_classification(
        options.data,
        console=console,
        val=options.val,
        images_per_class=options.images_per_class,
        seed=options.seed,
    )
    if options.loss == "ce" and splits.train.multi_label:
        raise UserError("images with several labels need a loss of each class", "--loss ce", "give --loss bce")
    if options.ab_drop_outside and not splits.train.multi_label:
        what = "each image has its one class, which cannot be dropped"
        raise UserError(what, "--ab-drop-outside", "leave it out; it is for images with several labels")
    sets = open_sets(options.eval_sets, splits.train.class_names, console)
    if options.byproducts is None:
        return Data(splits, None, None, None, sets)
    byproducts = read_byproducts(
        options.byproducts,
        form=options.ab_format,
        source=options.ab_from,
        point=options.ab_point,
        units=options.ab_units,
        console=console,
    )
    points = _matched(byproducts, splits.train, console)
    return Data(splits, byproducts, points, _matched_if_known(byproducts, splits, console), sets)


def prepare(options: TrainOptions, data: Data, world: World, console: Console) -> Training:
    """Build everything; the same seed builds the same.

    Raises:
        UserError: options, data, weights and network do not go together.
    """
    seed_everything(options.seed)
    train = data.splits.train
    network = network_to_train(options, len(train.class_names), console)
    pixels, eval_pixels = network.config, _eval_pixels(options, network.config)
    require_size(network.module, pixels.input_size, "--img-size")
    require_size(network.module, eval_pixels.input_size, "--eval-size")
    require_batch(network.module, pixels.input_size, min(options.batch_size, len(train)) // world.size)
    classifier = _classifier(options, network, data, console)
    batches = _batches(options, data, pixels, world, console)
    updates = -(-batches.steps_per_epoch // options.accumulate)
    objective = _objective(options, classifier, train, pixels, steps=updates * options.epochs, world=world)
    if options.sync_bn and world.size > 1:
        synchronise_batch_norm(classifier)
    classifier.to(world.device)
    if options.channels_last:
        classifier.to(memory_format=torch.channels_last)
    optimizer, scheduler = _optimizer(options, classifier, updates)
    return Training(
        data,
        network,
        classifier,
        objective,
        batches,
        validation_batches(options, data, eval_pixels, world, console),
        optimizer,
        scheduler,
        _plan(options),
        eval_pixels,
        world,
    )


def validation_batches(
    options: TrainOptions, data: Data, pixels: PixelConfig, world: World, console: Console
) -> EvaluationBatches | None:
    """Batches of the validation images, this process's share of them; None where there are none."""
    val = data.splits.val
    if val is None:
        return None
    return EvaluationBatches(
        val,
        evaluation_transform(pixels),
        batch_size=max(1, options.batch_size // world.size),
        workers=_workers(options),
        console=console,
        points=data.val_points,
        world=world,
        pin_memory=world.device.type == "cuda",
    )


def _workers(options: TrainOptions) -> int:
    """Digits are in memory, and augmented faster than they are sent between processes."""
    return 0 if options.workers is None and options.on_digits else worker_count(options.workers)


def _matched(
    byproducts: Byproducts, source: ImageSource, console: Console, split: Literal["train", "val"] = "train"
) -> PointTargets:
    return match_byproducts(
        byproducts,
        source.names,
        source.class_names,
        multi_label=source.multi_label,
        sizes=source.size,
        labels=None if source.multi_label else source.targets.tolist(),
        image_ids=source.ids,
        split=split,
        console=console,
    )


def _matched_if_known(byproducts: Byproducts, splits: Splits, console: Console) -> PointTargets | None:
    """The points of the validation images; None where the byproducts do not know them, or their names say nothing.

    Byproducts are of training images as a rule, and a validation image may be called as a training image is.
    """
    if splits.val is None or {*splits.val.names} & {*splits.train.names}:
        return None
    try:
        return _matched(byproducts, splits.val, console, "val")
    except UserError:
        return None


def _classifier(options: TrainOptions, network: Network, data: Data, console: Console) -> Classifier:
    points = 0 if data.points is None else data.points.points.shape[1]
    size = network.config.input_size
    sub = None
    if options.sub != "none":
        sub = choose_sub(
            network.module,
            options.sub,
            options.sub_mask_kind,
            parse_ratio(options.sub_ratio),
            size,
            block=options.sub_block,
            console=console,
        )
    classifier = Classifier(network.module, points=points, sub=sub, sub_bn=options.sub_bn, image_size=size)
    if options.compile:
        classifier.compile()
    return classifier


def _objective(
    options: TrainOptions,
    classifier: Classifier,
    source: ImageSource,
    pixels: PixelConfig,
    *,
    steps: int,
    world: World,
) -> Objective:
    classes = len(source.class_names)
    mixer = Mixer(
        classes,
        mixup_alpha=options.mixup,
        cutmix_alpha=options.cutmix,
        prob=options.mix_prob,
        switch_prob=options.mix_switch,
        mode=options.mix_mode,
        smoothing=options.smoothing,
        multi_label=source.multi_label,
    )
    points = None
    if classifier.points is not None:
        points = PointTerm(options.ab_weight, options.point_factor, options.ab_beta, options.ab_sub)
    sub = None
    if classifier.sub is not None:
        sub = SubTerm(classifier.sub, options.sub_target, options.sub_fused, steps)
    return Objective(
        pixels,
        mixer,
        kind=options.loss,
        classes=classes,
        binarize=options.binarize,
        smoothing=options.smoothing,
        erasing=options.erasing,
        points=points,
        sub=sub,
        channels_last=options.channels_last,
        world=world,
    )


def training_samples(options: TrainOptions, data: Data, pixels: PixelConfig) -> AugmentedImages:
    """The training images as the network sees them, with their points."""
    augmentation = Augmentation(
        size=pixels.input_size,
        crop=options.crop,
        scale=(options.crop_scale_min, options.crop_scale_max),
        interpolation=options.interpolation,
        shift=options.shift,
        hflip=options.hflip,
        vflip=options.vflip,
        auto_augment="" if options.auto_augment == NO_POLICY else options.auto_augment,
        color_jitter=options.color_jitter,
        mean=(pixels.mean[0], pixels.mean[1], pixels.mean[2]),
    )
    transform = train_transform(augmentation)
    return AugmentedImages(data.splits.train, transform, data.points, drop_outside=options.ab_drop_outside)


def _batches(options: TrainOptions, data: Data, pixels: PixelConfig, world: World, console: Console) -> WatchedBatches:
    train = data.splits.train
    batches = LoaderBatches(
        training_samples(options, data, pixels),
        options.batch_size,
        options.seed,
        _workers(options),
        world,
        pin_memory=world.device.type == "cuda",
        repeats=options.repeats,
    )
    return WatchedBatches(batches, train, console)


def _eval_pixels(options: TrainOptions, pixels: PixelConfig) -> PixelConfig:
    return PixelConfig(
        options.eval_size or pixels.input_size,
        pixels.mean,
        pixels.std,
        pixels.interpolation,
        options.crop_pct or (1.0 if options.on_digits else pixels.crop_pct),
    )


def _optimizer(
    options: TrainOptions, classifier: Classifier, updates_per_epoch: int
) -> tuple[torch.optim.Optimizer, Scheduler]:
    rates = LearningRates(options.lr, options.warmup_lr, options.min_lr)
    rates = rates.scaled(options.batch_size * options.accumulate, options.lr_base_size)
    optimizer = build_optimizer(
        parameter_groups(
            classifier, classifier.network, weight_decay=options.weight_decay, layer_decay=options.layer_decay
        ),
        options.optimizer,
        lr=rates.lr,
        momentum=options.momentum,
        eps=options.opt_eps,
        betas=options.betas,
    )
    scheduler = build_schedule(
        optimizer,
        options.schedule,
        rates=rates,
        epochs=options.epochs,
        updates_per_epoch=updates_per_epoch,
        on_updates=options.schedule_on == "updates",
        warmup_epochs=options.warmup_epochs,
        cooldown_epochs=options.cooldown_epochs,
    )
    return optimizer, scheduler


def _plan(options: TrainOptions) -> Plan:
    return Plan(
        epochs=options.epochs,
        accumulate=options.accumulate,
        clip_norm=options.clip_norm,
        ema_decay=options.ema_decay,
        precision=options.precision,
        checkpoint_seconds=options.checkpoint_seconds,
        skip_nonfinite=options.skip_nonfinite or 0,
        evaluate_epochs=options.evaluate_epochs,
    )
