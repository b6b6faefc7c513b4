"""Measures architectures of a trained supernet: their losses at rest and under noise, their accuracy, their angle.

A measurement costs the forward passes that it needs: images stay on the device, noise goes on the weights in place
and only on those that the architecture uses, nothing is copied but these, and the results are read once at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.supernet import Choice, Supernet
from vtk_cli.search.recalibration import calibration_batches, evaluating, measure_statistics, statistics_kept
from vtk_cli.search.scores.angle import measure_angle
from vtk_cli.search.scores.noise import Noise, perturbed, restored
from vtk_cli.search.scores.settings import Measurement, ScoreSettings
from vtk_cli.search.seen_images import Seen

Measured = dict[str, dict[str, Any]]
"""Plain numbers of each measurement, for JSON; a loss that is not finite is None.

    clean  loss: L_0    accuracy: 0..1    images: how many
    noise  loss: L_0    losses: [[L_1, ..., L_T] of each draw]    images: how many
    angle  radians: 0..pi    entries: of the vectors
"""


@dataclass(frozen=True)
class Images:
    """What architectures are measured on; all on the supernet's device, normalised, float32.

    Args:
        calibration: (N, C, H, W) of the training half, for batch normalisation.
        images: (M, C, H, W) of the scoring half; a tensor, or what makes one of a slice.
        labels: (M,) int64.
    """

    calibration: Tensor
    images: Seen
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images and {len(self.labels)} labels")


class _Parts:
    """The parts of a supernet, found once: looking for them anew would take as long as some forward passes."""

    def __init__(self, supernet: Supernet) -> None:
        self.modules = list(supernet.modules())
        self._parameters = [(name, one, supernet.choice_of(name)) for name, one in supernet.named_parameters()]
        self._normalisations = [
            (one, supernet.choice_of(f"{name}.running_mean"))
            for name, one in supernet.named_modules()
            if isinstance(one, nn.BatchNorm2d) and one.track_running_stats
        ]

    def parameters(self, genes: Genes) -> dict[str, nn.Parameter]:
        """Those that an architecture uses, by name."""
        return {name: one for name, one, choice in self._parameters if _uses(genes, choice)}

    def normalisations(self, genes: Genes) -> list[nn.BatchNorm2d]:
        """Those that an architecture uses."""
        return [one for one, choice in self._normalisations if _uses(genes, choice)]


class Scorer:
    """Measures architectures.

    Args:
        supernet: with its trained weights, on its device. Measuring leaves weights, statistics, modes and generators
            as they were.
        initial: the supernet's state before training, on the same device, for the angle; None if it is not there.
        images: what to measure on; None if nothing but the angle is asked for.
        settings: how.
    """

    def __init__(
        self, supernet: Supernet, initial: Mapping[str, Tensor] | None, images: Images | None, settings: ScoreSettings
    ) -> None:
        self.supernet, self.settings = supernet, settings
        self._initial, self._images = initial, images
        self._noise, self._parts = Noise(settings), _Parts(supernet)

    def check(self, needs: Iterable[Measurement]) -> None:
        """Refuse what cannot be measured.

        Raises:
            UserError: there are no images to measure on or too few to calibrate batch normalisation, or no initial
                weights for the angle, or they are of another supernet.
        """
        needs = frozenset(needs)
        if "angle" in needs:
            _ = self._states
        if needs & {"clean", "noise"}:
            if self._images is None or not len(self._images.images):
                what = "there is no image to score on: the scoring half has 0"
                raise UserError(what, "--val-images", "give at least 1")
            calibration_batches(self._images.calibration, self.settings.calibration_batch)

    def measure(self, genes: Genes, needs: Iterable[Measurement]) -> Measured:
        """Measure an architecture.

        Args:
            genes: of the architecture.
            needs: what to measure; `noise` gives `clean` as well.

        Returns:
            See `Measured`. Independent of what was measured before.

        Raises:
            UserError: see `check`, or the genes are not of the space.
        """
        needs = frozenset(needs)
        self.supernet.space.validate(genes)
        self.check(needs)
        measured: Measured = {}
        if needs & {"clean", "noise"}:
            measured |= self._losses(genes, noisy="noise" in needs)
        if "angle" in needs:
            quirk = self.settings.official_angle
            measured["angle"] = measure_angle(self.supernet, genes, *self._states, official=quirk)
        return measured

    @cached_property
    def _states(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The state before and after training; the latter is shared with the supernet, whose weights are put back."""
        final = self.supernet.state_dict()
        if self._initial is None:
            what = "the angle needs the weights from before the training, which are not here"
            raise UserError(what, "--score angle", "train the supernet anew, or choose another score")
        for name, value in final.items():
            if name not in self._initial or self._initial[name].shape != value.shape:
                what = f"the weights from before the training are of another supernet: {name} differs"
                raise UserError(what, "--score angle", "give the two states of one training")
        return self._initial, final

    @torch.no_grad()
    def _losses(self, genes: Genes, *, noisy: bool) -> Measured:
        own = self.settings.accuracy_calibration_images
        layers = self._parts.normalisations(genes)
        with evaluating(self._parts.modules), statistics_kept(layers), full_precision():
            self._calibrate(genes, layers, own)
            clean, hits = self._pass_with_hits(genes)
            passes = [clean]
            if noisy:
                if own is not None:
                    self._calibrate(genes, layers)
                passes += [clean if own is None else self._pass(genes), *self._noisy_passes(genes)]
        losses, count = self._means(passes), len(self._data.images)
        accuracy = float(hits.sum()) / count
        measured: Measured = {"clean": {"loss": losses[0], "accuracy": accuracy, "images": count}}
        if noisy:
            levels = len(self.settings.sigmas)
            curves = [losses[at : at + levels] for at in range(2, len(losses), levels)]
            measured["noise"] = {"loss": losses[1], "losses": curves, "images": count}
        return measured

    def _noisy_passes(self, genes: Genes) -> list[Tensor]:
        """A pass for each draw of the noise and each level of it."""
        parameters = self._parts.parameters(genes)
        weights, passes = list(parameters.values()), []
        with restored(weights) as trained:
            for draw in range(self.settings.draws):
                noise = self._noise.levels(parameters, draw, genes)
                passes += [self._pass(genes) for _ in perturbed(weights, noise, trained, self.settings)]
        return passes

    def _pass(self, genes: Genes) -> Tensor:
        """The sum of the losses of each batch of the scoring half, (batches,), left on the device."""
        return torch.stack([_summed_loss(logits, labels) for logits, labels in self._logits(genes)])

    def _pass_with_hits(self, genes: Genes) -> tuple[Tensor, Tensor]:
        """As `_pass`, and how many images of each batch are classified rightly."""
        found = [
            (_summed_loss(logits, labels), (logits.argmax(dim=1) == labels).sum())
            for logits, labels in self._logits(genes)
        ]
        losses, hits = zip(*found, strict=True)
        return torch.stack(losses), torch.stack(hits)

    def _logits(self, genes: Genes) -> Iterator[tuple[Tensor, Tensor]]:
        data, size = self._data, self.settings.batch_size
        for start in range(0, len(data.images), size):
            batch = slice(start, start + size)
            yield self.supernet(data.images[batch], genes), data.labels[batch]

    def _means(self, passes: Sequence[Tensor]) -> list[float | None]:
        """The mean loss of each pass, in double precision; None where it is not finite."""
        count, size = len(self._data.images), self.settings.batch_size
        sums = torch.stack(list(passes)).cpu().double()
        if self.settings.loss_mean == "images":
            means = sums.sum(dim=1) / count
        else:
            sizes = torch.tensor([min(size, count - start) for start in range(0, count, size)])
            means = (sums / sizes).mean(dim=1)
        return [value if math.isfinite(value) else None for value in means.tolist()]

    @property
    def _data(self) -> Images:
        assert self._images is not None  # noqa: S101 - `check` saw to it
        return self._images

    def _calibrate(self, genes: Genes, layers: Sequence[nn.BatchNorm2d], count: int | None = None) -> None:
        """On the same images for all architectures, unless each draws its own."""
        images, settings = self._data.calibration, self.settings
        count = min(settings.calibration_images if count is None else count, len(images))
        if not settings.fixed_calibration:
            rng = np.random.default_rng([settings.seed, *(gene + 1 for gene in genes)])
            images = images[torch.from_numpy(rng.permutation(len(images))[:count]).to(images.device)]
        batches = calibration_batches(images[:count], settings.calibration_batch)
        measure_statistics(layers, lambda batch: self.supernet(batch, genes), batches, settings.bn)


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, CUDA computes float32 as such: TF32 keeps 10 bits, too few for noise of 0.001."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _uses(genes: Genes, choice: Choice | None) -> bool:
    return choice is None or genes[choice[0]] == choice[1]


def _summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")
