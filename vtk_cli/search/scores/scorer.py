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
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.errors import UserError
from vtk_cli.search.recalibration import calibration_batches, modes_kept, recalibrate, statistics_kept
from vtk_cli.search.scores.angle import measure_angle
from vtk_cli.search.scores.noise import Noise, perturbed, restored
from vtk_cli.search.scores.settings import Measurement, ScoreSettings
from vtk_cli.search.spaces.genes import Genes
from vtk_cli.search.spaces.supernet import Supernet

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
        images: (M, C, H, W) of the scoring half.
        labels: (M,) int64.
    """

    calibration: Tensor
    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images and {len(self.labels)} labels")


@dataclass(frozen=True)
class _Pass:
    """A pass over the scoring half: for each batch the sum of its losses and of its hits, (batches,) on the device."""

    losses: Tensor
    hits: Tensor


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
        self._noise = Noise(settings)

    def check(self, needs: Iterable[Measurement]) -> None:
        """Refuse what cannot be measured.

        Raises:
            UserError: there are no images to measure on or too few to calibrate batch normalisation, or no initial
                weights for the angle, or they are of another supernet.
        """
        needs = frozenset(needs)
        if "angle" in needs:
            self._check_initial()
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
            assert self._initial is not None  # noqa: S101 - checked above
            quirk = self.settings.official_angle
            measured["angle"] = measure_angle(self.supernet, genes, self._initial, self._final, official=quirk)
        return measured

    @cached_property
    def _final(self) -> Mapping[str, Tensor]:
        """The trained state, shared with the supernet, whose weights are always put back."""
        return self.supernet.state_dict()

    def _check_initial(self) -> None:
        if self._initial is None:
            what = "the angle needs the weights from before the training, which are not here"
            raise UserError(what, "--score angle", "train the supernet anew, or choose another score")
        for name, value in self._final.items():
            if name not in self._initial or self._initial[name].shape != value.shape:
                what = f"the initial weights are of another supernet: {name} is another"
                raise UserError(what, "--score angle", "give the two states of one training")

    @torch.no_grad()
    def _losses(self, genes: Genes, *, noisy: bool) -> Measured:
        supernet, settings = self.supernet, self.settings
        draws: list[list[_Pass]] = []
        with modes_kept(supernet), statistics_kept(supernet, genes), full_precision():
            own = settings.accuracy_calibration_images
            recalibrate(supernet, genes, self._calibration(genes, own), settings.bn)
            rest = accurate = self._pass(genes)
            if noisy:
                if own is not None:
                    recalibrate(supernet, genes, self._calibration(genes), settings.bn)
                    rest = self._pass(genes)
                draws = [list(self._draw(genes, draw)) for draw in range(settings.draws)]
            losses = self._means([rest.losses, accurate.losses, *(one.losses for draw in draws for one in draw)])
        count = len(self._data.images)
        accuracy = int(accurate.hits.sum()) / count
        measured: Measured = {"clean": {"loss": losses[1], "accuracy": accuracy, "images": count}}
        if noisy:
            levels = len(settings.sigmas)
            curves = [losses[at : at + levels] for at in range(2, len(losses), levels)]
            measured["noise"] = {"loss": losses[0], "losses": curves, "images": count}
        return measured

    def _draw(self, genes: Genes, draw: int) -> Iterator[_Pass]:
        """A pass at each level of noise."""
        parameters = self.supernet.active_parameters(genes)
        noise = self._noise.levels(parameters, draw, genes)
        weights = list(parameters.values())
        with restored(weights) as trained:
            for _ in perturbed(weights, noise, trained, self.settings):
                yield self._pass(genes)

    def _pass(self, genes: Genes) -> _Pass:
        data, size = self._data, self.settings.batch_size
        losses, hits = [], []
        for images, labels in zip(data.images.split(size), data.labels.split(size), strict=True):
            logits = self.supernet(images, genes)
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            hits.append((logits.argmax(dim=1) == labels).sum())
        return _Pass(torch.stack(losses), torch.stack(hits))

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

    def _calibration(self, genes: Genes, count: int | None = None) -> tuple[Tensor, ...]:
        """The calibration batches, the same for all architectures unless each draws its own."""
        images, settings = self._data.calibration, self.settings
        count = min(settings.calibration_images if count is None else count, len(images))
        if not settings.fixed_calibration:
            rng = np.random.default_rng([settings.seed, *(gene + 1 for gene in genes)])
            images = images[torch.from_numpy(rng.permutation(len(images))[:count]).to(images.device)]
        return calibration_batches(images[:count], settings.calibration_batch)


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, CUDA computes float32 as such: TF32 keeps 10 bits, too few for noise of 0.001."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
