"""Training the supernet of a run, or taking over one that others trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.engine.batches import Batches
from vtk_cli.engine.loop import Plan, fit
from vtk_cli.engine.optimisation import LearningRates, build_schedule
from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.errors import UserError
from vtk_cli.files import make_folder, write_json
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.models.spaces.space import SUPERNET, Shape, Space
from vtk_cli.models.spaces.supernet import Supernet
from vtk_cli.search.images import SearchImages, listing_digest, open_search_images, training_batches
from vtk_cli.search.options import SupernetOptions
from vtk_cli.search.samplers import FairSampler, FlopsSampler, PathSampler, UniformSampler, default_bins
from vtk_cli.search.supernet_file import FOLDER, HALVES, INITIAL, LISTING, SupernetRun, save_state
from vtk_cli.search.supernet_training import PathObjective, sgd

METRICS = "metrics.jsonl"
_LABELS = 0x6C6162
_FEWEST = 2


@dataclass(frozen=True, eq=False)
class Prepared:
    """A supernet before its training.

    Args:
        space: whose architectures it holds.
        shape: of it.
        images: to train and to score on.
    """

    space: Space
    shape: Shape
    images: SearchImages


def prepare(options: SupernetOptions, console: Console) -> Prepared:
    """Open the images and settle the shape of the supernet.

    Raises:
        UserError: images, halves, shape or sampler are not what they must be.
    """
    space = space_named(options.space_name)
    side = options.size or space.forms[SUPERNET].resolution
    space.shape(SUPERNET, 2, resolution=side, width=options.width, cells=options.cells)  # before images of that size
    images = open_search_images(options, size=side, channels=space.input_channels, console=console)
    if len(images.halves.train) < _FEWEST:
        what = f"{len(images.halves.train)} image to train on is too few to calibrate batch normalisation"
        raise UserError(what, options.data, "give more images, or another --split-file")
    shape = space.shape(SUPERNET, images.classes, resolution=side, width=options.width, cells=options.cells)
    path_sampler(options, space, shape)
    return Prepared(space, shape, images)


def path_sampler(options: SupernetOptions, space: Space, shape: Shape) -> PathSampler:
    """The sampler that the options ask for.

    Raises:
        UserError: it does not fit the space, or a bin holds no network.
    """
    if options.sampler == "fair":
        return FairSampler(space)
    if options.sampler == "flops-uniform":
        alone = space.shape(
            space.alone, shape.classes, resolution=shape.resolution if space.alone != "imagenet" else None
        )
        return FlopsSampler(space, alone, options.bins or default_bins(space, alone))
    return UniformSampler(space)


def train_supernet(
    options: SupernetOptions,
    prepared: Prepared,
    folder: Path,
    world: World,
    console: Console,
    *,
    sync_bn: bool = False,
) -> SupernetRun:
    """Train the supernet of a run, go on with its training, or find it trained.

    Args:
        options: of the training.
        prepared: from the same options.
        folder: of the run.
        world: this process among the others.
        console: shows the progress.
        sync_bn: batch normalisation over all processes.

    Raises:
        JobError: the loss is not finite, or the disk is full.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    names = prepared.images.splits.train.class_names
    found = SupernetRun(folder, options, prepared.shape, names)
    if world.broadcast(found.final.is_file()):
        console.note(f"the supernet is trained already: {found.final}")
        return found
    seed_everything(options.seed)
    supernet = prepared.space.supernet(prepared.shape)
    place = folder / FOLDER
    world.on_main(lambda: _begin(prepared, supernet, place))
    if sync_bn and world.size > 1:
        synchronise_batch_norm(supernet)
    batches = _batches(options, prepared.images, world, console)
    optimizer = sgd(
        supernet.to(world.device),
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
        decay_on=options.decay_on,
        clip_value=options.clip_value,
    )
    sampler = path_sampler(options, prepared.space, prepared.shape)
    result = fit(
        supernet,
        PathObjective(sampler, seed=options.seed, smoothing=options.smoothing, sharpness=options.sam),
        batches,
        optimizer,
        plan=Plan(
            epochs=options.epochs,
            clip_norm=options.clip_norm,
            precision=options.precision,
            checkpoint_seconds=options.checkpoint_seconds,
            skip_nonfinite=options.skip_nonfinite or 0,
        ),
        device=world.device,
        seed=options.seed,
        scheduler=build_schedule(
            optimizer,
            "cosine" if options.schedule == "cosine" else "poly",
            rates=LearningRates(options.lr, 0.0, options.min_lr),
            epochs=options.epochs,
            updates_per_epoch=batches.steps_per_epoch,
            on_updates=options.schedule_on == "updates",
        ),
        evaluate=None,
        checkpoints=place / "checkpoints",
        metrics=place / METRICS,
        console=console,
        description=f"supernet {prepared.space.name}",
        world=world,
    )
    world.on_main(lambda: save_state(found.final, result.model.state_dict(), prepared.shape, names))
    return found


def _begin(prepared: Prepared, supernet: Supernet, place: Path) -> None:
    """Keep what the training starts from: the weights, for the angle, and the halves."""
    write_images(prepared.images, place)
    save_state(place / INITIAL, supernet.state_dict(), prepared.shape, prepared.images.splits.train.class_names)


def write_images(images: SearchImages, place: Path) -> None:
    """Keep which images a supernet sees: its halves, and a checksum of the list that they number.

    Raises:
        JobError, UserError: the disk is full, or the folder may not be written.
    """
    make_folder(place)
    images.halves.write(place / HALVES)
    write_json(place / LISTING, {"sha256": listing_digest(images.splits.train)})


def _batches(options: SupernetOptions, images: SearchImages, world: World, console: Console) -> Batches:
    batches = training_batches(images, options, world=world, console=console)
    if options.labels == "true":
        return batches
    return RandomLabels(batches, len(images.part("train")), images.classes, options.seed)


class RandomLabels:
    """Batches whose labels were drawn at random, one for each image and for good (arXiv 2101.11834).

    Args:
        batches: `(indices, images, targets)`.
        count: of the images.
        classes: number of labels.
        seed: of the draw.
    """

    def __init__(self, batches: Batches, count: int, classes: int, seed: int) -> None:
        self._batches = batches
        self._labels = torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed ^ _LABELS))

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._batches.steps_per_epoch

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of an epoch from number `start` on."""
        for indices, images, targets in self._batches.epoch(epoch, start):
            labels: Tensor = self._labels[indices.cpu()].to(targets.device)
            yield indices, images, labels

    def close(self) -> None:
        """End the worker processes, where there are any."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
