"""The loss of moment matching, linear in the fakes' moments along a moving average of what they lack.

A batch of fakes is too small to know its own moments, so the difference to the real ones, d = target - fake, is tracked
by a moving average v, and the loss is L = <v_mu, mu_r - mu_f> + <v_var, var_r - var_f> with v held fixed: the gradient
by the fakes' moments is -v (feature matching networks, arXiv 1904.02762). L may be negative and tells nothing of
progress; ||d_mu||^2 and ||d_var||^2 do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtk_cli.engine.processes.distributed import World
from vtk_cli.prune.keeping import FeatureNorm, MomentAverage
from vtk_cli.prune.moments import Moments, batch_moments

AMA_BETAS, AMA_EPS = (0.5, 0.999), 1e-8
_SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class Matched:
    """What a batch of fakes lacks.

    Args:
        loss: to be minimised; its gradient goes to the fakes alone.
        mean_gaps: ||d_mu||^2 of each layer, scaled as the loss has it, detached.
        variance_gaps: ||d_var||^2 of each layer.
    """

    loss: Tensor
    mean_gaps: Tensor
    variance_gaps: Tensor


class MovingAverage(nn.Module):
    """v, for the means and the variances of every layer; all of its state is in buffers.

    Args:
        kind: `ema`: v <- rate v + (1 - rate) d, used as v / (1 - rate^t); `ama`: Adam on the sum of (v - d)^2 with
            learning rate `rate`; `none`: no average, the squared differences are the loss.
        rate: see there.
        sizes: D_l of each layer.
    """

    step: Tensor

    def __init__(self, kind: MomentAverage, rate: float, sizes: Sequence[int]) -> None:
        super().__init__()
        self.kind, self.rate, self.layers = kind, rate, len(sizes)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        kept = {"none": (), "ema": ("v",), "ama": ("v", "first", "second")}[kind]
        for name in kept:
            for number, size in enumerate((*sizes, *sizes)):
                self.register_buffer(f"{name}{number}", torch.zeros(size))

    @torch.no_grad()
    def update(self, differences: Sequence[Tensor]) -> list[Tensor]:
        """Take in the differences of a batch and return v as the loss uses it.

        Args:
            differences: d of the means of every layer, then of the variances; (D_l,) each.
        """
        self.step += 1
        if self.kind == "ema":
            return [self._ema(number, d.detach()) for number, d in enumerate(differences)]
        return [self._ama(number, d.detach()) for number, d in enumerate(differences)]

    def _ema(self, number: int, d: Tensor) -> Tensor:
        v = self.get_buffer(f"v{number}")
        v.lerp_(d, 1 - self.rate)
        return v / self._correction(self.rate)

    def _ama(self, number: int, d: Tensor) -> Tensor:
        v, first, second = (self.get_buffer(f"{name}{number}") for name in ("v", "first", "second"))
        gradient = 2 * (v - d)
        first.lerp_(gradient, 1 - AMA_BETAS[0])
        second.lerp_(gradient.square(), 1 - AMA_BETAS[1])
        size = (second / self._correction(AMA_BETAS[1])).sqrt_().add_(AMA_EPS)
        v.sub_(self.rate * (first / self._correction(AMA_BETAS[0])) / size)
        return v.clone()

    def _correction(self, rate: float) -> Tensor:
        """1 - rate^t, in float64 so that it is not 0 for rates near 1."""
        return (1 - torch.pow(rate, self.step.double())).float()


class MomentLoss:
    """The loss of a batch's features against the targets.

    Args:
        targets: of the real images.
        norm: `layer`: in layer l means are divided by c_l = sqrt(mean of the target variances), variances by c_l^2, and
            every layer has the same weight, over which the loss is a mean; `none`: features weigh as they come.
    """

    def __init__(self, targets: Moments, norm: FeatureNorm) -> None:
        self.targets, self.norm = targets, norm
        # Not by each feature's own deviation: a feature that is dead on real images would then outweigh all others.
        scales = [variance.mean().sqrt().clamp(min=_SMALLEST_SCALE) for variance in targets.variances]
        self._scales = scales if norm == "layer" else [torch.ones_like(scale) for scale in scales]

    @property
    def sizes(self) -> list[int]:
        """D_l of each layer."""
        return [len(mean) for mean in self.targets.means]

    def differences(self, features: Sequence[Tensor], world: World | None = None) -> list[Tensor]:
        """d = target - fake, scaled: of the means of every layer, then of the variances; with gradients.

        Args:
            features: (B, ...) for each layer, B at least 2.
            world: this process among those that share the batch; None: it is alone.
        """
        means, variances = batch_moments(features, world)
        d_mu = [
            (target - mean) / scale for target, mean, scale in zip(self.targets.means, means, self._scales, strict=True)
        ]
        d_var = [
            (target - variance) / scale.square()
            for target, variance, scale in zip(self.targets.variances, variances, self._scales, strict=True)
        ]
        return [*d_mu, *d_var]

    def __call__(self, features: Sequence[Tensor], average: MovingAverage, world: World | None = None) -> Matched:
        """The loss of a batch, after the average has taken it in.

        Args:
            features: (B, ...) for each layer, B at least 2.
            average: changed; alike in all processes, which share one batch.
            world: this process among them; None: it is alone.
        """
        differences = self.differences(features, world)
        layers, device = len(features), differences[0].device
        factors = self._factors(average.kind) * 2
        along = differences if average.kind == "none" else average.update(differences)
        loss = torch.zeros((), device=device)
        for factor, v, d in zip(factors, along, differences, strict=True):
            loss = loss + factor * (v * d).sum()
        gaps = torch.stack([d.detach().square().sum() for d in differences])
        return Matched(loss, gaps[:layers], gaps[layers:])

    def _factors(self, kind: MomentAverage) -> list[float]:
        """What each layer's <v, d> counts: a mean with equal layers, or the plain sum (for `none` a mean)."""
        if self.norm == "layer":
            return [1 / (len(self.sizes) * size) for size in self.sizes]
        return [1 / self.targets.features if kind == "none" else 1.0] * len(self.sizes)


def gaps(matched: Matched) -> Mapping[str, float]:
    """What is logged of a batch: `mean_gap`, `variance_gap`, then layer by layer `mean_gap_0` ...

    Waits for the device.
    """
    found: dict[str, float] = {}
    for name, values in (("mean_gap", matched.mean_gaps.tolist()), ("variance_gap", matched.variance_gaps.tolist())):
        found |= {name: sum(values), **{f"{name}_{number}": value for number, value in enumerate(values)}}
    return found
