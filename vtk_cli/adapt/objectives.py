"""What a batch costs in each stage, for the engine's loop.

Every stage has one loss, the sum of its parts. Their gradients do not meet but in the network: the predictor sees
detached maps, the discriminator detached embeddings, and the network a detached discriminator; so that one optimiser
does what one for each would do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.adapt.domain_norm import SOURCE, TARGET
from vtk_cli.adapt.learner import Discriminator, Parts
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
from vtk_cli.adapt.networks import Answer, DomainNetwork
from vtk_cli.adapt.stage_batches import Together
from vtk_cli.engine.update import Clock
from vtk_cli.models.evaluation import normalised


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
    """

    def __init__(self, labels: Tensor, smoothing: float) -> None:
        self._labels, self._smoothing = labels, smoothing

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:  # noqa: ARG002
        """The loss of `(positions, images)`; `model`: a `DomainNetwork`."""
        positions, images = batch
        network = cast("DomainNetwork", model)
        answer = network(normalised(images, network.pixels), SOURCE)
        truth = self._labels[positions].to(images.device)
        return F.cross_entropy(answer.logits.float(), truth, label_smoothing=self._smoothing)


class LabelledObjective:
    """Labelled images of the target alone: cross-entropy for the network, ranking for the predictor.

    Args:
        labels: (n,) int64, by position.
        method: the settings.
    """

    def __init__(self, labels: Tensor, method: Method) -> None:
        self._labels, self._method = labels, method

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:  # noqa: ARG002
        """The loss of `(positions, images)`; `model`: `Parts`."""
        positions, images = batch
        parts = cast("Parts", model)
        answer = parts.network(normalised(images, parts.network.pixels), TARGET)
        losses = F.cross_entropy(answer.logits.float(), self._labels[positions].to(images.device), reduction="none")
        loss = losses.mean()
        if self._method.lpm_weight > 0:
            loss = loss + self._method.lpm_weight * predictor_loss(parts.predictor(answer), losses, self._method)
        return loss


class JointObjective:
    """The baseline: cross-entropy of source and of labelled images of the target, side by side (LADA's fine-tuning).

    The loss predictor, if it learns, ranks the labelled images.

    Args:
        source_labels: (N,) int64, by position.
        labels: (n,) int64, by position among the labelled images.
        method: the settings.
    """

    def __init__(self, source_labels: Tensor, labels: Tensor, method: Method) -> None:
        self._source_labels, self._labels, self._method = source_labels, labels, method

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:  # noqa: ARG002
        """The loss of `(positions, Together)`, whose images are the source's; `model`: `Parts`."""
        positions, together = cast("tuple[Tensor, Together]", batch)
        parts = cast("Parts", model)
        pixels, device = parts.network.pixels, together.images.device
        source = parts.network(normalised(together.images, pixels), SOURCE)
        loss = F.cross_entropy(source.logits.float(), self._source_labels[positions].to(device))
        if together.labelled is None or together.labelled_positions is None:
            return loss
        answer = parts.network(normalised(together.labelled, pixels), TARGET)
        truth = self._labels[together.labelled_positions.cpu()].to(device)
        losses = F.cross_entropy(answer.logits.float(), truth, reduction="none")
        loss = loss + losses.mean()
        if self._method.lpm_weight > 0:
            loss = loss + self._method.lpm_weight * predictor_loss(parts.predictor(answer), losses, self._method)
        return loss


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


Scores = Callable[[Parts], tuple[Tensor, Tensor]]
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
    """

    method: Method
    steps: int
    scores: Scores
    replayed: Tensor | None = None
    prior: Tensor | None = None
    confusion: bool = False

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:
        """The loss of `(positions, Together)`; `model`: `PseudoLabelled`, labelled anew when it is time."""
        positions, together = cast("tuple[Tensor, Together]", batch)
        held = cast("PseudoLabelled", model)
        interval = self.method.refresh_interval(self.steps, len(held.labels))
        if clock.step % interval == 0:
            self._refresh(held, is_first=clock.step == 0)
        return self._loss(held, positions.to(together.images.device), together, clock.step, interval)

    def _loss(self, held: PseudoLabelled, positions: Tensor, together: Together, step: int, interval: int) -> Tensor:
        method, parts, count = self.method, held.parts, len(together.images)
        pixels = parts.network.pixels
        seen = together.images if together.labelled is None else torch.cat((together.images, together.labelled))
        whole = parts.network(normalised(seen, pixels), TARGET)
        answer = whole.first(count)
        losses = F.cross_entropy(answer.logits.float(), held.labels[positions], reduction="none")
        loss = self._diversity(answer.logits)
        if not (method.pl_late and step < interval):
            loss = loss + method.pl_weight * pseudo_label_loss(losses, held.kept[positions])
        if together.labelled_positions is not None and self.replayed is not None:
            truth = self.replayed[together.labelled_positions.cpu()].to(seen.device)
            loss = loss + method.replay * F.cross_entropy(whole.logits[count:].float(), truth)
        if method.lpm_weight > 0 and 2 * step < self.steps:  # without a gradient the predictor stays as it is
            loss = loss + method.lpm_weight * predictor_loss(parts.predictor(answer), losses, method)
        if parts.discriminator is not None and together.source is not None:
            loss = loss + self._adversarial(parts.network, parts.discriminator, answer, together.source)
        return loss

    def _diversity(self, logits: Tensor) -> Tensor:
        if self.confusion:
            return self.method.im_weight * minimum_class_confusion(logits)
        if self.method.im_prior == "none":
            return self.method.im_weight * mean_entropy(logits)
        return self.method.im_weight * information_maximisation(logits, self.prior)

    def _adversarial(
        self, network: DomainNetwork, discriminator: Discriminator, answer: Answer, source: Tensor
    ) -> Tensor:
        with torch.no_grad():
            embedding = network(normalised(source, network.pixels), SOURCE).embedding
        torch.clear_autocast_cache()  # it may hold weights without their gradient
        told = discriminator_loss(discriminator(embedding), discriminator(answer.embedding.detach()))
        return told + self.method.adversarial * adversarial_loss(discriminator.judged(answer.embedding))

    def _refresh(self, held: PseudoLabelled, *, is_first: bool) -> None:
        logits, predicted = self.scores(held.parts)
        held.train()
        labels = logits.argmax(dim=1).to(held.labels.device)
        if not is_first:
            held.agreement.fill_((labels == held.labels).float().mean())
        held.labels.copy_(labels)
        if self.method.pl_keep < 1:
            held.kept.copy_(kept_pseudo_labels(labels, predicted.to(labels.device), self.method.pl_keep))
