"""The stages on the target, labelled and unlabelled, and the joint baseline (TL-ADA; arXiv 2204.11665).

    S        F and H on the source (`source_stage`); then H is frozen
    round 0  the unlabelled stage, with no label
    round c  the labelled stage on what was asked so far, then the unlabelled stage on the rest

Labels come in only as arguments, those of the source and those that were bought. Every stage is a training of its own
for the engine's loop: interrupted and called again with the same arguments it goes on, the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtk_cli.adapt.circumstances import JOINT_STAGE, LABELLED_STAGE, UNLABELLED_STAGE, Circumstances, checkpoints
from vtk_cli.adapt.domain_norm import TARGET
from vtk_cli.adapt.images import DomainImages
from vtk_cli.adapt.learner import Learner, Parts, PowerSchedule
from vtk_cli.adapt.losses import class_prior
from vtk_cli.adapt.measuring import NetworkOutputs, learning_outputs, network_outputs
from vtk_cli.adapt.method import Method
from vtk_cli.adapt.objectives import (
    JointObjective,
    LabelledObjective,
    PseudoLabelled,
    UnlabelledObjective,
)
from vtk_cli.adapt.sharing import InEachStep, SharedBatches, Sharing
from vtk_cli.adapt.stage_batches import JoinedBatches, WholeBatches
from vtk_cli.engine.batches import Batches
from vtk_cli.engine.epochs import EqualEpochs
from vtk_cli.engine.loop import FitResult, fit
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.errors import UserError


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled images of a domain.

    Args:
        rows: of the domain.
        labels: (n,) int64, of these rows.
    """

    rows: tuple[int, ...]
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels for {len(self.rows)} images")

    def __len__(self) -> int:
        return len(self.rows)

    def doubled(self) -> Labelled:
        """A single image twice, since batch normalisation cannot train on one; others as they are."""
        return Labelled(self.rows * 2, self.labels.repeat(2)) if len(self) == 1 else self


@dataclass(frozen=True, eq=False)
class StageOutcome:
    """What came of a stage.

    Args:
        steps: updates made.
        loss: their mean loss; None where all were left out.
        pseudo_labels: (N,) int64, the last ones of the unlabelled images in the order of their rows; None elsewhere.
        agreement: the share of them that is as it was when they were made before; None without such a time.
    """

    steps: int
    loss: float | None
    pseudo_labels: Tensor | None = None
    agreement: float | None = None


def adapt_to_labelled(
    learner: Learner,
    images: DomainImages,
    labelled: Labelled,
    *,
    round_number: int,
    asked: int,
    method: Method,
    place: Path | None,
    circumstances: Circumstances,
) -> StageOutcome | None:
    """The labelled stage: target images with labels, nothing else. None, and nothing done, where there are none.

    Args:
        learner: changed.
        images: of the target.
        labelled: all labels that were bought so far.
        round_number: from 1.
        asked: images that a round asks for; the stage's batch and length follow from it.
        method, place, circumstances: as of the other stages.

    Raises:
        JobError, Preempted, KeyboardInterrupt: as `train_source`.
    """
    if not len(labelled):
        circumstances.console.note("no labelled image: the labelled stage is left out")
        return None
    seen = labelled.doubled()
    seed = circumstances.begin(round_number, LABELLED_STAGE)
    size = max(2, method.labelled_batch or min(asked, method.batch_size))
    sharing = circumstances.sharing
    batches = SharedBatches(images, seen.rows, batch_size=size, seed=seed, sharing=sharing)
    steps = method.labelled_length(batches.steps_per_epoch, asked, round_number)
    result = _fit(
        learner,
        learner.parts,
        LabelledObjective(seen.labels, method, sharing),
        EqualEpochs(batches, steps),
        steps=steps,
        seed=seed,
        place=place,
        circumstances=circumstances,
        description=f"round {round_number}, labelled",
    )
    return StageOutcome(result.steps, _loss(result))


def adapt_to_unlabelled(
    learner: Learner,
    images: DomainImages,
    rows: Sequence[int],
    *,
    round_number: int,
    labelled: Labelled | None = None,
    source: DomainImages | None = None,
    method: Method,
    place: Path | None,
    circumstances: Circumstances,
) -> StageOutcome | None:
    """The unlabelled stage: pseudo labels and information maximisation. None, and nothing done, where none is left.

    Args:
        learner: changed.
        images: of the target.
        rows: those without label.
        round_number: 0 before the first question.
        labelled: the labels bought so far, for the replay.
        source: its images, without labels: for the discriminator, and for the length of the stage. None: source-free.
        method: the settings.
        place: a folder for the state of this stage; None keeps none.
        circumstances: where and how.

    Raises:
        UserError: a single image is left, or a discriminator has no source.
        JobError, Preempted, KeyboardInterrupt: as `train_source`.
    """
    console = circumstances.console
    if not rows:
        console.note("every image is labelled: the unlabelled stage is left out")
        return None
    if round_number == 0 and method.uda == "none":
        return None
    if len(rows) < 2:
        raise UserError("a single image without label cannot be learnt from", "target", "label it too, or give more")
    if learner.parts.discriminator is not None and source is None:
        raise UserError("a discriminator needs images of the source", "--source", "give it, or leave out --adv")
    if learner.network.classes > method.batch_size and method.im_prior != "none":
        what = f"{learner.network.classes} classes do not all fit in a batch of {method.batch_size}"
        console.warn(f"{what}: information maximisation draws them to be alike; see --im-prior")
    seed = circumstances.begin(round_number, UNLABELLED_STAGE)
    replayed = labelled.doubled() if labelled is not None and len(labelled) and method.replay > 0 else None
    batches, steps = _unlabelled_batches(
        images,
        rows,
        labelled=labelled,
        replayed=replayed,
        source=source,
        method=method,
        seed=seed,
        round_number=round_number,
        sharing=circumstances.sharing,
    )

    def scores(model: torch.nn.Module) -> tuple[Tensor, Tensor]:
        found = learning_outputs(
            model,
            images,
            rows,
            batch_size=circumstances.scoring_batch,
            precision=circumstances.precision,
            world=circumstances.world,
        )
        return found.logits, found.predicted_losses

    objective = UnlabelledObjective(
        method,
        steps,
        scores,
        replayed=None if replayed is None else replayed.labels,
        prior=_prior(learner, labelled, method, circumstances.device),
        confusion=method.uda == "mcc" and round_number == 0,
        sharing=circumstances.sharing,
    )
    held = PseudoLabelled(learner.parts, len(rows)).to(circumstances.device)
    result = _fit(
        learner,
        held,
        objective,
        batches,
        steps=steps,
        seed=seed,
        place=place,
        circumstances=circumstances,
        description=f"round {round_number}, unlabelled",
    )
    agreement = None if held.agreement.isnan() else float(held.agreement)
    return StageOutcome(result.steps, _loss(result), held.labels.cpu().clone(), agreement)


def adapt_jointly(
    learner: Learner,
    source: DomainImages,
    source_labels: Tensor,
    images: DomainImages,
    labelled: Labelled,
    *,
    round_number: int,
    method: Method,
    place: Path | None,
    circumstances: Circumstances,
) -> StageOutcome | None:
    """The baseline: source and labelled target together, for a round. None, and nothing done, without any label.

    Args:
        learner: changed; of a method with `train_head`, unless the classifier is to stay.
        source: its images.
        source_labels: (N,) int64.
        images: of the target.
        labelled: all labels that were bought so far.
        round_number: from 1.
        method, place, circumstances: as of the other stages.

    Raises:
        JobError, Preempted, KeyboardInterrupt: as `train_source`.
    """
    if not len(labelled):
        circumstances.console.note("no labelled image: the joint stage is left out")
        return None
    seen = labelled.doubled()
    seed = circumstances.begin(round_number, JOINT_STAGE)
    first, second = sample_seed(seed, 0, 1), sample_seed(seed, 0, 2)
    sharing, count = circumstances.sharing, min(method.batch_size, len(seen))
    of_source = SharedBatches(source, range(len(source)), batch_size=method.batch_size, seed=first, sharing=sharing)
    of_target = SharedBatches(images, seen.rows, batch_size=count, seed=second, sharing=sharing)
    steps = method.joint_length(-(-len(images) // method.batch_size), of_source.steps_per_epoch)
    result = _fit(
        learner,
        learner.parts,
        JointObjective(source_labels, seen.labels, method, sharing),
        JoinedBatches(steps, of_source, labelled=of_target),
        steps=steps,
        seed=seed,
        place=place,
        circumstances=circumstances,
        description=f"round {round_number}, joint",
    )
    return StageOutcome(result.steps, _loss(result))


def pool_scores(
    parts: Parts, images: DomainImages, rows: Sequence[int], circumstances: Circumstances
) -> NetworkOutputs:
    """What queries and pseudo labels are made of: outputs of images of the target, in eval mode, in their order."""
    return network_outputs(
        parts.network,
        images,
        rows,
        domain=TARGET,
        batch_size=circumstances.scoring_batch,
        precision=circumstances.precision,
        predictor=parts.predictor,
        discriminator=parts.discriminator,
        world=circumstances.world,
    )


def _unlabelled_batches(
    images: DomainImages,
    rows: Sequence[int],
    *,
    labelled: Labelled | None,
    replayed: Labelled | None,
    source: DomainImages | None,
    method: Method,
    seed: int,
    round_number: int,
    sharing: Sharing,
) -> tuple[JoinedBatches, int]:
    """The batches of the unlabelled stage and how many there are; once there is a label, only whole ones."""
    size = method.batch_size
    unlabelled: Batches = SharedBatches(images, rows, batch_size=size, seed=seed, sharing=sharing)
    if labelled is not None and len(labelled):
        unlabelled = WholeBatches(unlabelled, len(rows), size)
    of_source = None
    if source is not None:
        of_source = SharedBatches(
            source, range(len(source)), batch_size=size, seed=sample_seed(seed, 0, 1), sharing=sharing
        )
    source_steps = of_source.steps_per_epoch if of_source else 0
    steps = method.unlabelled_length(unlabelled.steps_per_epoch, source_steps, round_number)
    of_labelled = None
    if replayed is not None:
        count = min(max(2, method.replay_batch), len(replayed))
        # Normalised along with the unlabelled ones: a share of none will do, where these are shared.
        beside = replace(sharing, fewest=0 if sharing.sizes(min(size, len(rows))) else sharing.fewest)
        of_labelled = SharedBatches(
            images, replayed.rows, batch_size=count, seed=sample_seed(seed, 0, 2), sharing=beside
        )
    joined = JoinedBatches(
        steps, unlabelled, source=of_source if method.adversarial > 0 else None, labelled=of_labelled
    )
    return joined, steps


def _prior(learner: Learner, labelled: Labelled | None, method: Method, device: torch.device) -> Tensor | None:
    if method.im_prior != "L" or labelled is None or not len(labelled):
        return None
    return class_prior(labelled.labels, learner.network.classes).to(device)


def _fit(
    learner: Learner,
    model: torch.nn.Module,
    objective: Any,
    batches: Batches,
    *,
    steps: int,
    seed: int,
    place: Path | None,
    circumstances: Circumstances,
    description: str,
) -> FitResult:
    with circumstances.normalised_together(model):
        return fit(
            model,
            InEachStep(objective),
            batches,
            learner.optimizer,
            plan=circumstances.plan(1),
            device=circumstances.device,
            seed=seed,
            scheduler=PowerSchedule(learner.optimizer, steps),
            evaluate=None,
            checkpoints=checkpoints(place),
            metrics=None if place is None else place / "metrics.jsonl",
            console=circumstances.console,
            description=description,
            world=circumstances.world,
        )


def _loss(result: FitResult) -> float | None:
    return result.metrics["loss"]
