"""Stage S, the training on the source, and the target's batch normalisation before the first pseudo labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vtk_cli.adapt.circumstances import NORM_STAGE, SOURCE_STAGE, Circumstances, checkpoints
from vtk_cli.adapt.domain_norm import SOURCE, TARGET, TargetNorm, initialise_target_norm
from vtk_cli.adapt.images import DomainImages
from vtk_cli.adapt.learner import PowerSchedule, sgd
from vtk_cli.adapt.measuring import accuracy, network_outputs
from vtk_cli.adapt.method import SourceTraining
from vtk_cli.adapt.networks import DomainNetwork
from vtk_cli.adapt.objectives import SourceObjective
from vtk_cli.adapt.sharing import InEachStep, SharedBatches
from vtk_cli.engine.loop import fit
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.errors import UserError
from vtk_cli.models.best_weights import BestWeights
from vtk_cli.models.described_weights import save_described
from vtk_cli.models.evaluation import normalised
from vtk_cli.models.weights import read_state_dict

_BEST = "best.safetensors"


@dataclass(frozen=True, eq=False)
class SourceOutcome:
    """What came of the training on the source.

    Args:
        steps: updates made.
        loss: the mean of the last epoch; None where all its updates were left out.
        holdout_accuracy: of the kept weights, in percent; None without a hold-out.
    """

    steps: int
    loss: float | None
    holdout_accuracy: float | None


def train_source(
    network: DomainNetwork,
    images: DomainImages,
    labels: Tensor,
    *,
    training: SourceTraining,
    place: Path | None,
    circumstances: Circumstances,
) -> SourceOutcome:
    """Stage S: the whole network on the source.

    Args:
        network: changed; on the device afterwards, in eval mode.
        images: of the source.
        labels: (N,) int64, all of them.
        training: the settings.
        place: a folder for the state of the training; None keeps none.
        circumstances: where and how.

    Raises:
        JobError: the loss is not finite, or the disk is full.
        UserError: the hold-out leaves fewer than two images, or nothing to keep the best by.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    fitted, held = _split(len(images), training)
    seed = circumstances.begin(0, SOURCE_STAGE)
    sharing = circumstances.sharing
    batches = SharedBatches(images, fitted, batch_size=training.batch_size, seed=seed, sharing=sharing)
    optimizer = sgd(
        [(network.to(circumstances.device), training.lr)],
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
    if training.keep == "best" and (place is None or not held):
        raise UserError("there is nothing to keep the best weights by", "--keep best", "keep the last")

    def measured(model: nn.Module) -> dict[str, float]:
        found = network_outputs(
            cast("DomainNetwork", model),
            images,
            held,
            domain=SOURCE,
            batch_size=circumstances.scoring_batch,
            world=circumstances.world,
        )
        return {"accuracy": accuracy(found.logits, labels[list(held)]) or 0.0}

    best = None if place is None or training.keep == "last" else BestWeights(place / _BEST, "accuracy", _save_best)
    objective = SourceObjective(labels[list(fitted)], training.smoothing, network.pixels, sharing)
    with circumstances.normalised_together(network):
        result = fit(
            network,
            InEachStep(objective),
            batches,
            optimizer,
            plan=circumstances.plan(training.epochs),
            device=circumstances.device,
            seed=seed,
            scheduler=PowerSchedule(optimizer, training.epochs * batches.steps_per_epoch),
            evaluate=measured if held else None,
            after_epoch=best,
            checkpoints=checkpoints(place),
            metrics=None if place is None else place / "metrics.jsonl",
            console=circumstances.console,
            description="source",
            world=circumstances.world,
        )
    value = result.metrics.get("accuracy")
    if best is not None and place is not None and (kept := best.kept()) is not None:
        network.load_state_dict(read_state_dict(place / _BEST))
        value = kept["accuracy"]
    return SourceOutcome(result.steps, result.metrics["loss"], None if value is None else float(value))


def begin_target(
    network: DomainNetwork,
    images: DomainImages,
    *,
    start: TargetNorm = "adabn",
    circumstances: Circumstances,
) -> None:
    """Make the target's batch normalisation ready, before the first pseudo labels; no label is used.

    Args:
        network: after stage S; changed.
        images: of the target, all of the pool.
        start: what the layers start from.
        circumstances: where and how.

    Raises:
        UserError: there are fewer than two images, or `pretrained` has no meaning.
    """
    if len(images) < 2:
        raise UserError(f"{len(images)} image(s) are no target to adapt to", "--target", "give at least 2")
    seed = sample_seed(circumstances.seed, 0, NORM_STAGE)
    # Mixed, for folders are sorted by class, and so many in a batch that none has a single image.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split(-(-len(images) // max(2, circumstances.scoring_batch)))
    network.to(circumstances.device)

    def run(batch: Tensor) -> None:
        network(normalised(batch.to(circumstances.device), network.pixels), TARGET)

    def batches() -> Iterable[Tensor]:
        for rows in parts:
            yield from images.plain(rows.tolist(), batch_size=len(rows))

    initialise_target_norm(network, run, batches, start)


def _split(count: int, training: SourceTraining) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows to train on and rows held out, both ascending."""
    held = int(training.holdout * count)
    if count - held < 2:
        raise UserError(f"{count - held} image(s) of the source are left to train on", "--source", "give more")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(training.holdout_seed)).tolist()
    return tuple(sorted(order[held:])), tuple(sorted(order[:held]))


def _save_best(path: Path, model: nn.Module, note: dict[str, str]) -> None:
    save_described(path, model.state_dict(), note)
