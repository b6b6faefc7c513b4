"""What a batch costs in each stage, for the engine's loop.

Every stage has one loss, the sum of its parts. Their gradients do not meet but in the network: the predictor sees
detached maps, the discriminator detached embeddings, and the network a detached discriminator; so that one optimiser
does what one for each would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.adapt.domain_norm import SOURCE, TARGET
from vtk_cli.adapt.learner import Parts, Seen
from vtk_cli.adapt.losses import (
    adversarial_loss,
    discriminator_loss,
    information_maximisation,
    kept_pseudo_labels,
    mean_entropy,
    minimum_class_confusion,
    pseudo_label_loss,
    ranking_cross_entropy,
    ranking_loss,
)
from vtk_cli.adapt.method import Method
from vtk_cli.adapt.sharing import ALONE, Sharing, trained_module
from vtk_cli.adapt.stage_batches import Together
from vtk_cli.engine.update import Clock
from vtk_cli.models.evaluation import normalised
from vtk_cli.models.preprocessing import PixelConfig


def predictor_loss(predicted: Tensor, true: Tensor, method: Method) -> Tensor:
    """The loss predictor's loss of B images."""
    if method.rank_loss == "bce":
        return ranking_cross_entropy(predicted, true)
    return ranking_loss(predicted, true, method.margin)


class SourceObjective:
    """Cross-entropy with smoothed labels, under the source's batch normalisation.

    Args:
        labels: (N,) int64, by position.
        smoothing: a share that goes to all classes alike.
        pixels: of the network.
        sharing: of a batch among the processes.
    """

    def __init__(self, labels: Tensor, smoothing: float, pixels: PixelConfig, sharing: Sharing = ALONE) -> None:
        self._labels, self._smoothing, self._pixels, self._sharing = labels, smoothing, pixels, sharing

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:  # noqa: ARG002
        """The loss of `(positions, images, sizes)`; `model`: a `DomainNetwork`."""
        positions, images, sizes = batch
        answer = model(normalised(images, self._pixels), SOURCE)
        logits, truth = _whole(self._sharing, sizes, answer.logits.float(), self._labels[positions])
        return F.cross_entropy(logits, truth, label_smoothing=self._smoothing)


class LabelledObjective:
    """Labelled images of the target alone: cross-entropy for the network, ranking for the predictor.

    Args:
        labels: (n,) int64, by position.
        method: the settings.
        sharing: of a batch among the processes.
    """

    def __init__(self, labels: Tensor, method: Method, sharing: Sharing = ALONE) -> None:
        self._labels, self._method, self._sharing = labels, method, sharing

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:  # noqa: ARG002
        """The loss of `(positions, images, sizes)`; `model`: `Parts`."""
        positions, images, sizes = batch
        seen: Seen = model(images, TARGET)
        return labelled_loss(seen, self._labels[positions], sizes, self._method, self._sharing)


class JointObjective:
    """The baseline: cross-entropy of source and of labelled images of the target, side by side (LADA's fine-tuning).

    The loss predictor, if it learns, ranks the labelled images.

    Args:
        source_labels: (N,) int64, by position.
        labels: (n,) int64, by position among the labelled images.
        method: the settings.
        sharing: of a batch of either domain among the processes.
    """

    def __init__(self, source_labels: Tensor, labels: Tensor, method: Method, sharing: Sharing = ALONE) -> None:
        self._source_labels, self._labels, self._method, self._sharing = source_labels, labels, method, sharing

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:  # noqa: ARG002
        """The loss of `(positions, Together)`, whose images are the source's; `model`: `Parts`."""
        positions, together = cast("tuple[Tensor, Together]", batch)
        source: Seen = model(together.images, SOURCE)
        logits = source.answer.logits.float()
        logits, truth = _whole(self._sharing, together.sizes, logits, self._source_labels[positions])
        loss = F.cross_entropy(logits, truth)
        if together.labelled is None or together.labelled_positions is None:
            return loss
        seen: Seen = model(together.labelled, TARGET)
        labels = self._labels[together.labelled_positions.cpu()]
        return loss + labelled_loss(seen, labels, together.labelled_sizes, self._method, self._sharing)


def labelled_loss(seen: Seen, labels: Tensor, sizes: Sequence[int], method: Method, sharing: Sharing) -> Tensor:
    """Cross-entropy of labelled images, and the loss predictor's loss of them if it learns.

    Args:
        seen: of this process's images.
        labels: theirs.
        sizes: how many each process has.
        method: the settings.
        sharing: among the processes.
    """
    logits, truth = _whole(sharing, sizes, seen.answer.logits.float(), labels)
    losses = F.cross_entropy(logits, truth, reduction="none")
    loss = losses.mean()
    if method.lpm_weight > 0:
        loss = loss + method.lpm_weight * predictor_loss(sharing.whole(seen.predicted, sizes), losses, method)
    return loss


def _whole(sharing: Sharing, sizes: Sequence[int], logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels of the whole batch."""
    return sharing.whole(logits, sizes), sharing.whole(labels.to(logits.device), sizes)


class PseudoLabelled(nn.Module):
    """The parts, with the pseudo labels of the unlabelled images, which a checkpoint must hold.

    Args:
        parts: what learns.
        count: unlabelled images.
    """

    labels: Tensor
    kept: Tensor
    agreement: Tensor

    def __init__(self, parts: Parts, count: int) -> None:
        super().__init__()
        self.parts = parts
        self.register_buffer("labels", torch.zeros(count, dtype=torch.int64))
        self.register_buffer("kept", torch.ones(count, dtype=torch.bool))
        self.register_buffer("agreement", torch.full((), torch.nan))

    def forward(self, images: Tensor, domain: int, source: Tensor | None = None) -> Seen:
        """As the parts."""
        seen: Seen = self.parts(images, domain, source)
        return seen


Scores = Callable[[nn.Module], tuple[Tensor, Tensor]]
"""Logits (N, C) and predicted losses (N,) of all unlabelled images, in eval mode under the target's normalisation."""


@dataclass(frozen=True, eq=False)
class UnlabelledObjective:
    """Unlabelled images of the target by their pseudo labels, with information maximisation and replay.

    Args:
        method: the settings.
        steps: updates of the stage.
        scores: of all unlabelled images.
        replayed: (n,) int64, labels of the labelled images by position.
        prior: (C,), what the mean prediction is drawn to; None: uniform.
        confusion: minimum class confusion in place of information maximisation.
        sharing: of a batch among the processes.
    """

    method: Method
    steps: int
    scores: Scores
    replayed: Tensor | None = None
    prior: Tensor | None = None
    confusion: bool = False
    sharing: Sharing = ALONE

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:
        """The loss of `(positions, Together)`; `model`: `PseudoLabelled`, labelled anew when it is time."""
        positions, together = cast("tuple[Tensor, Together]", batch)
        held = cast("PseudoLabelled", trained_module(model))
        interval = self.method.refresh_interval(self.steps, len(held.labels))
        if clock.step % interval == 0:
            self._refresh(model, held, is_first=clock.step == 0)
        kinds = [kind for kind in (together.images, together.labelled) if kind is not None]
        seen: Seen = model(torch.cat(kinds) if len(kinds) > 1 else kinds[0], TARGET, together.source)
        count = len(together.images)
        mine = (seen.answer.logits[:count].float(), seen.predicted[:count], positions.to(seen.predicted.device))
        logits, predicted, at = (self.sharing.whole(each, together.sizes) for each in mine)
        losses = F.cross_entropy(logits, held.labels[at], reduction="none")
        loss = self._diversity(logits)
        if not (self.method.pl_late and clock.step < interval):
            loss = loss + self.method.pl_weight * pseudo_label_loss(losses, held.kept[at])
        if together.labelled_positions is not None and self.replayed is not None:
            own = self.replayed[together.labelled_positions.cpu()]
            replay = _whole(self.sharing, together.labelled_sizes, seen.answer.logits[count:].float(), own)
            loss = loss + self.method.replay * F.cross_entropy(*replay)
        if self.method.lpm_weight > 0 and 2 * clock.step < self.steps:  # without a gradient the predictor stays
            loss = loss + self.method.lpm_weight * predictor_loss(predicted, losses, self.method)
        if seen.told is not None and seen.passed is not None and seen.source_told is not None:
            loss = loss + self._adversarial(seen.told[:count], seen.passed[:count], seen.source_told, together)
        return loss

    def _diversity(self, logits: Tensor) -> Tensor:
        if self.confusion:
            return self.method.im_weight * minimum_class_confusion(logits)
        if self.method.im_prior == "none":
            return self.method.im_weight * mean_entropy(logits)
        return self.method.im_weight * information_maximisation(logits, self.prior)

    def _adversarial(self, told: Tensor, passed: Tensor, source_told: Tensor, together: Together) -> Tensor:
        told, passed = (self.sharing.whole(each, together.sizes) for each in (told, passed))
        source_told = self.sharing.whole(source_told, together.source_sizes)
        return discriminator_loss(source_told, told) + self.method.adversarial * adversarial_loss(passed)

    def _refresh(self, model: nn.Module, held: PseudoLabelled, *, is_first: bool) -> None:
        logits, predicted = self.scores(model)
        model.train()
        labels = logits.argmax(dim=1).to(held.labels.device)
        if not is_first:
            held.agreement.fill_((labels == held.labels).float().mean())
        held.labels.copy_(labels)
        if self.method.pl_keep < 1:
            held.kept.copy_(kept_pseudo_labels(labels, predicted.to(labels.device), self.method.pl_keep))
