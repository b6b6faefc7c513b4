"""The Frechet distance between two sets of features, each taken for a Gaussian (arXiv 1706.08500, Equation 6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean and covariance of a set of features.

    Args:
        count: how many there were, N.
        mean: (D,) float64.
        covariance: (D, D) float64, divided by N - 1.
    """

    count: int
    mean: Tensor
    covariance: Tensor

    @property
    def is_singular(self) -> bool:
        """Whether there were too few features for a covariance of full rank: the distance is then too large."""
        return self.count <= len(self.mean)


class GaussianMeter:
    """Mean and covariance of features that come in chunks, in float64; the chunks play no role but for rounding.

    Chunks are merged by their centred sums (Chan, Golub and LeVeque, 1979): sums of squares of features that are far
    from zero would cancel.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Take in (B, D) features."""
        chunk = features.detach().to("cpu", torch.float64)
        count, mean = len(chunk), chunk.mean(dim=0)
        centred = chunk - mean
        scatter = centred.T @ centred
        if self._count == 0:
            self._count, self._mean, self._scatter = count, mean, scatter
            return
        total, step = self._count + count, mean - self._mean
        self._scatter += scatter + torch.outer(step, step) * (self._count * count / total)
        self._mean = self._mean + step * (count / total)
        self._count = total

    def value(self) -> Gaussian:
        """What was seen so far.

        Raises:
            ValueError: fewer than two features have no covariance.
        """
        if self._count < 2:
            raise ValueError(f"{self._count} features have no covariance: at least 2 are needed")
        return Gaussian(self._count, self._mean.clone(), self._scatter / (self._count - 1))


def gaussian_of(features: Tensor) -> Gaussian:
    """Mean and covariance of (N, D) features, N >= 2.

    Raises:
        ValueError: there are fewer than two.
    """
    meter = GaussianMeter()
    meter.update(features)
    return meter.value()


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """||m1 - m2||^2 + tr C1 + tr C2 - 2 tr (C1^1/2 C2 C1^1/2)^1/2, finite, real and at least 0 (arXiv 1706.08500).

    With C = L L^T the last trace is the sum of the singular values of L1^T L2. They are computed as such: the
    eigenvalues of C1^1/2 C2 C1^1/2 are their squares and lose half of the digits, and the square root of the product
    C1 C2, which is not symmetric, turns complex where a covariance is singular.

    Raises:
        ValueError: the features have different lengths.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"features of {len(first.mean)} and of {len(second.mean)} numbers cannot be compared")
    between = (first.mean - second.mean).square().sum()
    within = first.covariance.trace() + second.covariance.trace()
    shared = torch.linalg.svdvals(_factor(first.covariance).T @ _factor(second.covariance)).sum()
    return max(0.0, float(between + within - 2 * shared))


def _factor(covariance: Tensor) -> Tensor:
    """L (D, R) with L L^T = C for a positive semi-definite C (D, D) of rank R."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > 0
    factor: Tensor = vectors[:, kept] * values[kept].sqrt()
    return factor
