"""The objective of a step: the main loss, then that of the sub-model taught by it (arXiv 2306.11339), and the points.

    L = 1/2 [crit(o1, Y) + lambda R(z1, z)] + 1/2 [crit(o2, t) + lambda R(z2, ...)],    t = stopgrad(act(o1))

Without a sub-model L is the first bracket. R is the byproduct regression of arXiv 2303.17595.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn

from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.whole_batch import summed
from vtk_cli.engine.seeds import preserved_rng, preserved_sample_rng, sample_seed, start_sample_rng
from vtk_cli.engine.update import Clock, gradients_stay_here
from vtk_cli.errors import UserError
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.train.losses import LossKind, criterion, point_loss, relaxed_target
from vtk_cli.train.mixing import Mixed, MixedPoints, Mixer
from vtk_cli.train.sub.model import SubDraw, SubModel

SubTarget = Literal["relaxed", "label", "mix"]

_ERASING, _MIXING = 1, 2
"""What the draws of a batch are for; each has its own seed."""


@dataclass(frozen=True)
class PointTerm:
    """The weight of the points in the objective.

    Args:
        weight: lambda, 0 or more.
        scale: a factor on it; None: 1 for cross-entropy, 1 / C for binary cross-entropy, whose gradient on a logit is
            as much smaller.
        beta: where smoothL1 turns from quadratic to linear, above 0.
        sub: the sub-model's point target: none (the place clicked may be masked), the label, or (`relaxed`) the
            main model's prediction.
    """

    weight: float = 10.0
    scale: float | None = None
    beta: float = 1.0
    sub: Literal["none", "label", "relaxed"] = "none"


@dataclass(frozen=True)
class SubTerm:
    """The sub-model's part of the objective.

    Args:
        model: makes the draws.
        target: what teaches it: `relaxed`, the model's own prediction; `label`; or `mix`, the mean of both.
        fused: one backward pass for both losses: the same gradient, more memory.
        steps: updates of the whole training, for a ratio that changes; 0 where it does not.
    """

    model: SubModel
    target: SubTarget = "relaxed"
    fused: bool = False
    steps: int = 0


class Objective:
    """The loss of `vtk train` for the engine's loop.

    A batch is `(indices, images, targets)` or `(indices, images, targets, points, present)`: images uint8
    (B, 3, S, S); targets int64 (B,), or float32 (B, C) with several labels a sample; points float32 (B, P, 2) in
    fractions of the image; present bool (B, P).

    Args:
        pixels: mean and standard deviation that the network expects.
        mixer: makes targets dense, and mixes.
        kind: `ce` or `bce`.
        classes: C.
        binarize: every class of a mixture counts fully (DeiT-III); only with `bce`.
        smoothing: the mixer's; refused with `binarize`, where it would turn every class on.
        erasing: probability of random erasing (arXiv 1708.04896) of a sample.
        points: None without a point head.
        sub: None without a sub-model.
        channels_last: hand images over in that memory format.
        world: the processes that share each batch equally: what is drawn is drawn for all of it, and the points are
            counted over all of it, so that they come to what one process does. None for a single one.

    Attributes:
        branches: names of the losses, for messages.

    Raises:
        UserError: see `binarize` and `smoothing`.
    """

    def __init__(
        self,
        pixels: PixelConfig,
        mixer: Mixer,
        *,
        kind: LossKind = "ce",
        classes: int,
        binarize: bool = False,
        smoothing: float = 0.0,
        erasing: float = 0.0,
        points: PointTerm | None = None,
        sub: SubTerm | None = None,
        channels_last: bool = False,
        world: World | None = None,
    ) -> None:
        if binarize and kind != "bce":
            raise UserError("--binarize goes with binary cross-entropy only", "--binarize", "add --loss bce")
        if binarize and smoothing > 0:
            what = "binarised targets with label smoothing would turn all classes on"
            raise UserError(what, "--binarize", "set --smoothing 0")
        self._pixels, self._mixer, self._kind, self._binarize = pixels, mixer, kind, binarize
        self._points, self._sub = points, sub
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._erasing, self._world = erasing, world
        self._point_weight = 0.0
        if points is not None:
            self._point_weight = points.weight * _point_scale(points, kind, classes)
        self._moments: tuple[Tensor, Tensor] | None = None
        self.branches: tuple[str, ...] = ("main branch",)
        if sub is not None:
            self.branches = ("main and sub-branch",) if sub.fused else ("main branch", "sub-branch")

    def __call__(self, model: nn.Module, batch: Any, clock: Clock) -> Iterator[Tensor]:
        """Yield the losses whose sum is the objective, each before the forward of the next.

        Args:
            model: a `Classifier` in training mode, possibly wrapped for several processes.
            batch: on the model's device.
            clock: seeds every draw.
        """
        mixed = self._prepared(batch, clock)
        if self._sub is None:
            logits, points = model(mixed.images)
            yield self._class_loss(logits, mixed.targets) + self._point_term(points, mixed.points)
            return
        term, draw = self._sub, self._draw(self._sub, mixed.images, clock)
        with nullcontext() if term.fused else gradients_stay_here(model):
            logits, points = model(mixed.images)
            loss = (self._class_loss(logits, mixed.targets) + self._point_term(points, mixed.points)) / 2
            taught = self._taught(term.target, logits, mixed.targets)
            anchors = None if points is None else points.detach()
            if not term.fused:
                del logits, points  # the main graph is freed by its backward, before the sub-model's is built
                yield loss
                loss = loss.new_zeros(())
        logits, points = model(mixed.images, draw)
        yield loss + (self._class_loss(logits, taught) + self._sub_point_term(points, anchors, mixed.points)) / 2

    def normalised(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float32, mean and standard deviation taken out of uint8 images."""
        if self._moments is None or self._moments[0].device != images.device:
            values = (self._pixels.mean, self._pixels.std)
            mean, std = (torch.tensor(value, device=images.device).view(1, -1, 1, 1) for value in values)
            self._moments = mean, std
        mean, std = self._moments
        return images.to(torch.float32, copy=True, memory_format=self._format).div_(255).sub_(mean).div_(std)

    def gradient_norms(self, classifier: nn.Module, batch: Any, clock: Clock) -> dict[str, float]:
        """2-norms of the gradients that the class loss and the weighted point loss have on the weights they share.

        They show whether lambda lets the points count. Of this process's batch alone. No weight, gradient or generator
        changes, but batch normalisation's running statistics do.

        Args:
            classifier: with a point head, in training mode, not wrapped for several processes.
            batch, clock: as of a call.

        Returns:
            `class` and `points`.
        """
        alone = copy.copy(self)
        alone._world = None
        mixed = alone._prepared(batch, clock)
        with preserved_rng():
            logits, points = classifier(mixed.images)
        weights = [weight for weight in classifier.parameters() if weight.requires_grad]
        losses = (
            self._class_loss(logits, mixed.targets),
            torch.as_tensor(alone._point_term(points, mixed.points)),
        )
        found = (torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True) for loss in losses)
        shared = [pair for pair in zip(*found, strict=True) if pair[0] is not None and pair[1] is not None]
        norms = [float(nn.utils.get_total_norm(gradients)) for gradients in zip(*shared, strict=True)]
        return dict(zip(("class", "points"), norms, strict=True))

    def _prepared(self, batch: Any, clock: Clock) -> Mixed:
        """The batch as the model sees it: normalised, erased, mixed."""
        _, images, targets, *points = batch
        images = self.normalised(images)
        if self._erasing:
            self._erase(images, sample_seed(clock.shared_seed, 0, _ERASING))
        seed = sample_seed(clock.shared_seed, 0, _MIXING)
        mixed = self._mixer(images, targets, *points, seed=seed, world=self._world)
        images = mixed.images.contiguous(memory_format=self._format)
        labels = (mixed.targets > 0).to(mixed.targets.dtype) if self._binarize else mixed.targets
        return replace(mixed, images=images, targets=labels)

    def _erase(self, images: Tensor, seed: int) -> None:
        """Erase each image (in place) by its place in the whole batch.

        On an accelerator the place is drawn so; what is put there is drawn by the process's own generator.
        """
        erase = RandomErasing(self._erasing, mode="pixel", device=images.device)
        first = len(images) * (self._world.rank if self._world is not None else 0)
        with preserved_sample_rng():
            for place, image in enumerate(images, first):
                start_sample_rng(sample_seed(seed, place, 0))
                erase(image)

    def _draw(self, term: SubTerm, images: Tensor, clock: Clock) -> SubDraw:
        """This process's part of what is drawn for the whole batch."""
        progress, count = clock.step / term.steps if term.steps else 0.0, len(images)
        rank, size = (0, 1) if self._world is None else (self._world.rank, self._world.size)
        whole = term.model.draw(count * size, clock.shared_seed, clock.step, images.device, progress)
        return whole if whole.keep is None else whole._replace(keep=whole.keep[rank * count : (rank + 1) * count])

    def _class_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return criterion(logits, targets, self._kind)

    def _taught(self, target: SubTarget, logits: Tensor, targets: Tensor) -> Tensor:
        """What the sub-model learns: the relaxed target, the label, or the mean of both."""
        if target == "label":
            return targets
        relaxed = relaxed_target(logits, self._kind)
        return relaxed if target == "relaxed" else (relaxed + targets) / 2

    def _point_term(self, predicted: Tensor | None, known: MixedPoints | None) -> Tensor | float:
        """`lambda R`, of a mixture `lambda (l R_a + (1 - l) R_b)`."""
        if predicted is None:
            return 0.0
        if known is None or self._points is None:
            return _unused(predicted)
        terms = [
            point_loss(predicted, points, present, self._points.beta, share=share, count=self._counted(present))
            for points, present, share in zip(
                known.points.unbind(1), known.present.unbind(1), known.share.unbind(1), strict=True
            )
        ]
        return self._point_weight * (terms[0] + terms[1])

    def _sub_point_term(
        self, predicted: Tensor | None, main: Tensor | None, known: MixedPoints | None
    ) -> Tensor | float:
        """The sub-model's `lambda R`; `main` (B, P, 2) is the main model's prediction, detached."""
        if predicted is None or main is None or self._points is None:
            return 0.0
        if self._points.sub == "label":
            return self._point_term(predicted, known)
        if self._points.sub == "none" or known is None:
            return _unused(predicted)
        seen = known.present.amax(dim=1)
        return self._point_weight * point_loss(predicted, main, seen, self._points.beta, count=self._counted(seen))

    def _counted(self, present: Tensor) -> Tensor:
        """Over how many points R is a mean: an equal share of those of all processes, whose gradients are averaged."""
        count = summed(present.float().sum(), self._world).clamp(min=1)
        return count / self._world.size if self._world is not None else count


def _point_scale(points: PointTerm, kind: LossKind, classes: int) -> float:
    if points.scale is not None:
        return points.scale
    return 1 / classes if kind == "bce" else 1.0


def _unused(predicted: Tensor) -> Tensor:
    """Zero that hangs on the prediction: among several processes every parameter must take part in the backward."""
    return 0.0 * predicted.float().sum()
