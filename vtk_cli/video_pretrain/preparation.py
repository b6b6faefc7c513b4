"""Everything that a training needs, built before its first update: videos, network, method, batches, optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from vtk_cli.console import Console
from vtk_cli.data.video.clips import ClipSource, CountedBatches
from vtk_cli.data.video.decoding import VideoDecoder
from vtk_cli.data.video.reading import check_backend
from vtk_cli.data.video.sets import VideoSet, open_videos
from vtk_cli.engine.batches import LoaderBatches
from vtk_cli.engine.loop import Plan
from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.engine.update import Loss
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.byol import BYOL
from vtk_cli.video_pretrain.data_options import ListOptions
from vtk_cli.video_pretrain.farneback import farneback_flow
from vtk_cli.video_pretrain.flow_labels import Flow, FlowLabels
from vtk_cli.video_pretrain.freqaug import FreqAug, freqaug_of
from vtk_cli.video_pretrain.heads import mlp_head
from vtk_cli.video_pretrain.lucas_kanade import lucas_kanade_flow
from vtk_cli.video_pretrain.moco import MoCo
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone, VideoTransformer
from vtk_cli.video_pretrain.networks.class_head import fill_class_head
from vtk_cli.video_pretrain.networks.image_weights import start_from_published, takes_published
from vtk_cli.video_pretrain.objective import ClassifiedVideo, PretrainedVideo, SSLObjective, SupervisedObjective
from vtk_cli.video_pretrain.optimisation import Rate, build_optimizer, parameter_groups
from vtk_cli.video_pretrain.options import VideoOptions
from vtk_cli.video_pretrain.samples import TestViews, TrainViews, collate_views
from vtk_cli.video_pretrain.simclr import SimCLR
from vtk_cli.video_pretrain.ssl_method import SSLMethod
from vtk_cli.video_pretrain.swav import SwAV
from vtk_cli.video_pretrain.temporal_losses import TemporalHeads
from vtk_cli.video_pretrain.trained import NetworkConfig, holds_network, start_from
from vtk_cli.video_pretrain.view_augmentation import augmentation_of

PRETRAINED, SCRATCH = "pretrained", "none"
_FLOWS: dict[str, Flow] = {"farneback": farneback_flow, "lk": lucas_kanade_flow}


@dataclass(frozen=True)
class Data:
    """The videos, ready to be decoded.

    Args:
        train, val: the videos; val None where there are none.
        train_source, val_source: what their clips are taken from.
    """

    train: VideoSet
    val: VideoSet | None
    train_source: ClipSource
    val_source: ClipSource | None


@dataclass(frozen=True, eq=False)
class Training:
    """What is trained, with what, and how.

    Args:
        model: all that learns.
        config: of its backbone.
        data: the videos.
        batches: of views.
        objective: the losses.
        optimizer, scheduler, plan: of the engine.
        world: this process among the others.
        notes: what was found while preparing, for people.
    """

    model: PretrainedVideo | ClassifiedVideo
    config: NetworkConfig
    data: Data
    batches: CountedBatches
    objective: Loss
    optimizer: torch.optim.Optimizer
    scheduler: Rate
    plan: Plan
    world: World
    notes: list[str] = field(default_factory=list)

    @property
    def backbone(self) -> VideoBackbone:
        """What is kept."""
        return self.model.backbone


def open_data(options: VideoOptions, console: Console) -> Data:
    """Find the videos; nothing is decoded but where they are kept in memory.

    Raises:
        UserError: there are none, or they do not fit the objective.
    """
    check_backend(options.backend)
    train, val = open_videos(
        options.data,
        options.val,
        list_format=None if options.format == "auto" else options.format,
        root=options.root,
        console=console,
    )
    if options.objective == "supervised" and not train.labelled:
        raise UserError("the training videos have no labels", options.data, "label them, or give --objective ssl")
    return Data(train, val, source_of(train, options), None if val is None else source_of(val, options))


def source_of(videos: VideoSet, options: ListOptions) -> ClipSource:
    """What clips of videos are taken from, decoded as the options say."""
    return ClipSource(videos.videos, VideoDecoder(options.backend, options.decode_timeout))


def prepare(options: VideoOptions, data: Data, world: World, console: Console) -> Training:
    """Build everything; the same seed builds the same.

    Raises:
        UserError: options, videos and weights do not go together.
    """
    seed_everything(options.seed)
    frames, side = options.clips.frames, options.img_size
    freqaug = freqaug_of(options)
    freqaug.check(frames, side)
    scale = options.test_scale or side
    config = NetworkConfig(
        options.network, frames, side, options.sampling, options.mean, options.std, scale, options.constructor_arguments
    )
    backbone, notes = config.build(), list[str]()
    temporal = temporal_heads(options, backbone)
    batches = _batches(options, data, freqaug, world)
    updates_per_epoch = -(-batches.steps_per_epoch // options.accumulate)
    updates = updates_per_epoch * options.epochs
    model: PretrainedVideo | ClassifiedVideo
    objective: Loss
    if options.objective == "ssl":
        notes += _started(options, backbone, None)
        model = PretrainedVideo(ssl_method(options, backbone), temporal)
        names = [name for name in options.time_losses if name in {"order", "flow"}]
        objective = SSLObjective(freqaug, updates, names)
    else:
        model = ClassifiedVideo(
            backbone,
            len(data.train.classes),
            dropout=options.dropout,
            temporal=temporal,
            frozen=options.freeze,
            adapt=options.probe_bn == "adapt",
        )
        notes += _started(options, backbone, model.head)
        objective = SupervisedObjective(
            freqaug,
            smoothing=options.smoothing,
            temporal={name: options.time_weight[name] for name in options.time_losses},
            each=options.time_perm == "sample",
            shuffled_order=options.order_input == "shuffled",
        )
    if options.sync_bn and world.size > 1:
        synchronise_batch_norm(model)
    idle = min(_updates_to_fill(options), updates_per_epoch) if _fills_a_queue(options) else 0
    factor = 1.0 if options.lr_base_size is None else options.batch_size * options.accumulate / options.lr_base_size
    groups = parameter_groups([model], options.weight_decay)
    optimizer = build_optimizer(
        groups, options.optimizer, lr=options.lr * factor, momentum=options.momentum, amsgrad=options.amsgrad
    )
    scheduler = Rate(
        optimizer,
        options.schedule,
        options.lr * factor,
        options.warmup_lr * factor,
        options.min_lr * factor,
        updates_per_epoch,
        options.epochs,
        options.warmup,
        options.milestone_epochs,
        idle,
    )
    if options.compile:
        backbone.compile()
    plan = Plan(
        epochs=options.epochs,
        accumulate=options.accumulate,
        clip_norm=options.clip_norm,
        ema_decay=options.ema_decay,
        precision=options.precision,
        checkpoint_seconds=options.checkpoint_seconds,
        skip_nonfinite=options.skip_nonfinite or 0,
        evaluate_epochs=_evaluated_every(options),
    )
    for note in notes:
        console.note(note)
    return Training(model, config, data, batches, objective, optimizer, scheduler, plan, world, notes)


def test_views(options: VideoOptions) -> TestViews:
    """How the options look at a video in a test."""
    return TestViews(
        options.clips,
        options.test_clips,
        options.crops,
        options.test_scale or options.img_size,
        options.img_size,
        options.views_offset,
        options.short,
        options.mean,
        options.std,
    )


test_views.__test__ = False  # type: ignore[attr-defined]


def ssl_method(options: VideoOptions, backbone: VideoBackbone) -> SSLMethod:
    """The self-supervised framework around a backbone."""
    dim, bn = options.head_dim, options.head_bn
    head = mlp_head(backbone.feature_dim, options.head_width, dim, options.head_layers, bn=bn)
    temperature = options.temperature
    if options.method == "simclr":
        return SimCLR(backbone, head, temperature=temperature)
    if options.method == "swav":
        return SwAV(
            backbone,
            head,
            dim=dim,
            prototypes=options.prototypes,
            temperature=temperature,
            eps=options.sinkhorn_eps,
            iterations=options.sinkhorn_iterations,
            frozen=1 / options.epochs,
        )
    momentum, anneal = options.momentum_encoder, options.momentum_anneal
    if options.method == "byol":
        predictor = mlp_head(dim, options.predictor_width, dim, 2, bn=bn)
        return BYOL(backbone, head, predictor, temperature=temperature, momentum=momentum, anneal=anneal)
    return MoCo(backbone, head, dim=dim, queue=options.queue, temperature=temperature, momentum=momentum, anneal=anneal)


def temporal_heads(options: VideoOptions, backbone: VideoBackbone) -> TemporalHeads | None:
    """The heads of the temporal losses that look at tokens; None where none is asked for.

    Raises:
        UserError: the network has no tokens, or the frames are not whole patches.
    """
    if not options.time_losses:
        return None
    if not isinstance(backbone, VideoTransformer):
        what = f"{options.network} gives no token for every patch, as the temporal losses need"
        raise UserError(what, f"--time {options.time}", "choose a transformer: timesformer, motionformer, xvit")
    if options.img_size % backbone.patch_size:
        what = f"frames of {options.img_size} pixels are no whole patches of {backbone.patch_size}"
        raise UserError(what, "--img-size", f"give a multiple of {backbone.patch_size}")
    weights = {name: options.time_weight[name] for name in options.time_losses if name != "debias"}
    flow = _FLOWS.get(options.flow_target)
    if "flow" in weights and flow is None:
        raise UserError(f"no flow {options.flow_target!r}", "--flow-target", f"choose from {', '.join(_FLOWS)}")
    labels = (
        None if flow is None else FlowLabels(flow, backbone.patch_size, options.static_threshold, options.flow_bins)
    )
    return TemporalHeads(
        backbone.feature_dim, options.clips.frames, weights, labels=labels, smoothing=options.smoothing
    )


def _batches(options: VideoOptions, data: Data, freqaug: FreqAug, world: World) -> CountedBatches:
    views = options.views if options.objective == "ssl" else 1
    gap = (options.view_gap_min or 0.0, float("inf") if options.view_gap_max is None else options.view_gap_max)
    dataset = TrainViews(
        data.train_source,
        data.train.labels,
        options.clips,
        views,
        gap,
        options.short,
        augmentation_of(options, options.img_size),
        freqaug,
    )
    workers = 0 if options.workers is None and options.is_in_memory else worker_count(options.workers)
    loader = LoaderBatches(
        dataset,
        options.batch_size,
        options.seed,
        workers,
        world,
        collate=collate_views,
        pin_memory=world.device.type == "cuda",
    )
    return CountedBatches(loader, data.train_source)


def _started(options: VideoOptions, backbone: VideoBackbone, head: nn.Linear | None) -> list[str]:
    """Load the weights that the options name; what to tell of it."""
    if options.weights == SCRATCH:
        return []
    if options.weights == PRETRAINED:
        found = start_from_published(backbone, options.network)
        return [f"starts from {found.source}; new: {len(found.made_anew)} tensors"]
    path = Path(options.weights)
    if not path.exists():
        fix = "give none, pretrained, a run folder or a weight file"
        raise UserError("no such run folder or weight file", f"--weights {options.weights}", fix)
    if path.is_file() and takes_published(backbone, options.network) and not holds_network(path):
        found = start_from_published(backbone, options.network, path)
        return [f"starts from {found.source}; new: {len(found.made_anew)} tensors"]
    saved = start_from(backbone, options.network, options.weights)
    told = fill_class_head(head, saved.head) if head is not None else ""
    return [f"starts from {saved.path}", *(note for note in (*saved.notes, told) if note)]


def _fills_a_queue(options: VideoOptions) -> bool:
    return options.objective == "ssl" and options.method == "moco"


def _updates_to_fill(options: VideoOptions) -> int:
    """Updates until MoCo's queue is full; only those of the first epoch move nothing (arXiv 2104.14558)."""
    return -(-options.queue // (options.batch_size * options.views * options.accumulate))


def _evaluated_every(options: VideoOptions) -> int:
    if options.objective == "supervised":
        return options.evaluate_epochs
    return options.knn_epochs or options.epochs
