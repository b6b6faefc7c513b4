"""The MaskRefineNet's training on rough masks, and its use on pseudo labels (arXiv 2303.15062, Section 3.3)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.scenes import normalised
from vtk_cli.data.points import PointSet
from vtk_cli.engine.batches import LoaderBatches
from vtk_cli.engine.epochs import EqualEpochs, equal_epochs
from vtk_cli.engine.loop import Plan, fit
from vtk_cli.engine.metrics import Row
from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.run_weights import BEST
from vtk_cli.engine.seeds import seed_everything
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import UserError
from vtk_cli.files import write_json
from vtk_cli.models.names import parse_network
from vtk_cli.models.published import timm_weights
from vtk_cli.models.weights import read_state_dict
from vtk_cli.segment.labels.inputs import classes_of
from vtk_cli.segment.labels.sources import common_folder
from vtk_cli.segment.options import NONE, SegmentOptions
from vtk_cli.segment.pseudo.labelling import labels_made
from vtk_cli.segment.pseudo.labels import PseudoLabel, annotation_of, read_pseudo_labels, write_pseudo_labels
from vtk_cli.segment.pseudo.parts import PARTS, make_each
from vtk_cli.segment.refine.checkpoint import SavedRefiner, save_refiner
from vtk_cli.segment.refine.configurations import RefineConfig, refine_config
from vtk_cli.segment.refine.evaluation import MaskQuality, evaluate_refinement
from vtk_cli.segment.refine.inference import refine_labels
from vtk_cli.segment.refine.losses import column_dice_loss, soft_dice_loss
from vtk_cli.segment.refine.network import (
    ENCODER,
    MaskRefineNet,
    MicroRefineNet,
    build_refine_network,
    load_encoder,
)
from vtk_cli.segment.refine.objective import RefineObjective
from vtk_cli.segment.refine.pairs import RefinePair, RefinePairs, collate_crops, hold_out, match_rough_masks
from vtk_cli.segment.training.schedules import Rate, warm_cosine
from vtk_cli.segment.training.teaching import CHECKPOINTS, METRICS

REFINED, CHOSEN = "refined.json", "chosen.json"
"""The refined labels; which epoch the kept weights are of, and how good their masks are."""
_EVALUATIONS = 40
"""How often the held-out masks are looked at; published: every 5,000 of 200,000 updates."""


@dataclass(frozen=True, eq=False)
class RefineData:
    """Rough masks with their objects, to learn from and to choose by."""

    train: list[RefinePair]
    held: list[RefinePair]


def refine_settings(options: SegmentOptions) -> RefineConfig:
    """How masks are refined, as the options say."""
    config = refine_config(options.refiner)
    return config if options.refine_steps is None else replace(config, steps=options.refine_steps)


def refine_data(strong: DetectionSet, rough: Path, seed: int) -> RefineData:
    """The rough masks of a file with their objects, a tenth of the images held out.

    Raises:
        UserError: there are rough masks on fewer than two images.
    """
    pairs = match_rough_masks(strong, read_pseudo_labels(rough, classes_of(strong)))
    if not pairs:
        what = "the teacher makes no mask of any fully labelled object, so that there is nothing to refine"
        raise UserError(what, str(rough), "train the teacher longer, or go on without refinement (--no-refine)")
    train, held = hold_out([pair.record.id for pair in pairs], seed)
    kept = set(train)
    known = set(held)
    # the click that refinement is given is the object's centroid, also where the rough mask has another
    chosen = [
        replace(pair, rough=replace(pair.rough, point=pair.centroid)) for pair in pairs if pair.record.id in known
    ]
    return RefineData([pair for pair in pairs if pair.record.id in kept], chosen)


def train_refiner(
    options: SegmentOptions, strong: DetectionSet, data: RefineData, folder: Path, *, world: World, console: Console
) -> MaskQuality:
    """Train a MaskRefineNet, and keep the state whose masks of the held-out images are best.

    Batch normalisation is over all processes, as published for several GPUs (arXiv 2303.15062).

    Returns:
        How good these masks are, rough and refined.
    """
    config, classes = refine_settings(options), classes_of(strong)
    C = len(classes.names)
    seed_everything(options.seed)
    network = build_refine_network(config, C)
    if isinstance(network, MaskRefineNet) and options.weights != NONE:
        weights = timm_weights(parse_network(ENCODER), offline=False)
        load_encoder(network, read_state_dict(weights.path), str(weights.path))
    if world.size > 1:
        synchronise_batch_norm(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    workers = 0 if options.workers is None and options.on_scenes else worker_count(options.workers)
    passes = LoaderBatches(
        RefinePairs(data.train, config),
        config.batch_size,
        options.seed,
        workers,
        collate=collate_crops,
        part=lambda crops: own_share(crops, world),
    )
    epochs, each = equal_epochs(config.steps, passes.steps_per_epoch)
    dice = column_dice_loss if options.official_quirks else soft_dice_loss

    def evaluate(model: nn.Module) -> dict[str, float]:
        found = evaluate_refinement(_refiner(model), config, C, data.held, world)
        return {"iou": found.refined, "rough_iou": found.rough}

    def keep_best(row: Row, model: nn.Module, averaged: nn.Module | None) -> None:  # noqa: ARG001
        if row.get("iou") is None:
            return
        epoch, value = int(row["epoch"] or 0), float(row["iou"] or 0.0)
        before = _chosen(folder)
        if before is not None and (before[0] > epoch or before[1] >= value):
            return  # of an epoch that a killed run has made already and will make again, or not as good
        save_refiner(folder / BEST, model.state_dict(), config, classes)
        write_json(folder / CHOSEN, {"epoch": epoch, "iou": value, "rough_iou": row["rough_iou"]})

    fit(
        network,
        RefineObjective(config, C, dice, world),
        EqualEpochs(passes, each),
        optimizer,
        plan=Plan(
            epochs=epochs,
            precision=options.precision,
            checkpoint_seconds=options.checkpoint_seconds,
            skip_nonfinite=options.skip_nonfinite or 0,
            evaluate_epochs=max(1, epochs // _EVALUATIONS),
        ),
        device=world.device,
        seed=options.seed,
        scheduler=Rate(optimizer, config.lr, warm_cosine(epochs * each, config.warmup, config.final_lr / config.lr)),
        evaluate=evaluate,
        after_epoch=keep_best,
        checkpoints=folder / CHECKPOINTS,
        metrics=folder / METRICS,
        console=console,
        description="training the MaskRefineNet",
        world=world,
    )
    world.on_main(lambda: shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True))
    said = json.loads((folder / CHOSEN).read_text(encoding="utf-8"))
    found = MaskQuality(said["rough_iou"], said["iou"], len(data.held))
    console.note(f"held-out masks: IoU {found.rough:.3f} rough, {found.refined:.3f} refined")
    if found.refined < found.rough:
        console.warn("refinement makes the held-out masks worse: train it longer, or go on with --no-refine")
    return found


def own_share(crops: Tensor, world: World) -> Tensor:
    """This process's part of a batch: its loss is one of sums over all processes, so parts may differ by one crop.

    Of a batch that is too small for all, every process has the whole.
    """
    return crops.tensor_split(world.size)[world.rank] if len(crops) >= world.size else crops


def write_refined(
    saved: SavedRefiner,
    points: PointSet,
    labels: Iterable[PseudoLabel],
    folder: Path,
    *,
    world: World,
    console: Console,
) -> None:
    """Write `refined.json`: labels with refined masks, in their order.

    The images are shared among the processes, and what is finished of them is kept where the stage ends early.

    Args:
        saved: the network; its classes are those of the labels.
        points: the clicked images.
        labels: those of an image one after another.
        folder: of the stage.
        world: this process among the others.
        console: shows the progress.

    Raises:
        BrokenImage: an image can no longer be read.
        UserError: the network is for other classes.
        Preempted, KeyboardInterrupt: a signal came; what is finished is kept.
    """
    classes = points.classes
    if saved.classes.names != classes.names:
        raise UserError("refines other classes than those of the clicks", str(saved.path), "train it anew")
    network = saved.build().to(world.device)
    images = {image.id: image for image in points.images}
    groups = [list(group) for _, group in groupby(labels, key=lambda label: label.image_id)]

    def make(indices: Sequence[int]) -> Generator[tuple[int, Any]]:
        for index in indices:
            of_image = groups[index]
            pixels = normalised(pil_to_tensor(images[of_image[0].image_id].read())).to(world.device)
            better = refine_labels(network, saved.config, len(classes.names), pixels, of_image)
            yield index, {"labels": [annotation_of(label, 0, classes) for label in better]}

    with console.progress("refining", len(groups)) as progress:
        make_each(len(groups), make, folder / PARTS, world=world, progress=progress)

    def join() -> None:
        better = labels_made(folder / PARTS, len(groups), classes)
        write_pseudo_labels(folder / REFINED, better, points, common_folder(points.images))
        shutil.rmtree(folder / PARTS)

    world.on_main(join)


def _refiner(model: nn.Module) -> MaskRefineNet | MicroRefineNet:
    if not isinstance(model, (MaskRefineNet, MicroRefineNet)):
        raise TypeError(f"a {type(model).__name__} refines no masks")
    return model


def _chosen(folder: Path) -> tuple[int, float] | None:
    try:
        said = json.loads((folder / CHOSEN).read_text(encoding="utf-8"))
        return int(said["epoch"]), float(said["iou"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
