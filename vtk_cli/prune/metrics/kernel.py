"""The kernel distance between two sets of features, KID for Inception's (arXiv 1801.01401, Section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SUBSETS = 100
SUBSET_SIZE = 1000


@dataclass(frozen=True)
class KernelDistance:
    """A kernel distance.

    Args:
        mean: over the subsets; unbiased, so that it may fall a little below 0.
        std: over the subsets; None where the subsets are the whole sets, and there is one estimate only.
        subsets: how many were drawn.
        size: features in each subset of either set.
    """

    mean: float
    std: float | None
    subsets: int
    size: int


def kernel_distance(
    first: Tensor, second: Tensor, *, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = 0
) -> KernelDistance:
    """The squared maximum mean discrepancy, averaged over subsets drawn without replacement.

    Args:
        first: (N, D) features.
        second: (M, D) features.
        subsets: how many.
        size: features in each, at most N and M; fewer where a set has fewer.
        seed: of the draws.

    Raises:
        ValueError: a set has fewer than two features.
    """
    size = min(size, len(first), len(second))
    if size < 2:
        raise ValueError(f"{len(first)} and {len(second)} features have no unbiased distance: at least 2 are needed")
    first, second = first.to("cpu", torch.float64), second.to("cpu", torch.float64)
    if size == len(first) == len(second):
        return KernelDistance(squared_mmd(first, second), None, 1, size)
    generator = torch.Generator().manual_seed(seed)
    draws = [
        squared_mmd(*(features[torch.randperm(len(features), generator=generator)[:size]] for features in pair))
        for pair in [(first, second)] * subsets
    ]
    values = torch.tensor(draws, dtype=torch.float64)
    return KernelDistance(float(values.mean()), float(values.std(correction=0)), subsets, size)


def squared_mmd(first: Tensor, second: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy under k(u, v) = (u . v / D + 1)^3 (arXiv 1801.01401, Equation 4).

    Args:
        first: (N, D) features, N >= 2.
        second: (M, D) features, M >= 2.
    """
    across = polynomial_kernel(first, second).mean()
    return float(_mean_of_others(first) + _mean_of_others(second) - 2 * across)


def polynomial_kernel(first: Tensor, second: Tensor) -> Tensor:
    """(u . v / D + 1)^3 of (N, D) and (M, D) features: (N, M)."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def _mean_of_others(features: Tensor) -> Tensor:
    """The mean of the kernel over all pairs of two different features."""
    kernel, count = polynomial_kernel(features, features), len(features)
    return (kernel.sum() - kernel.trace()) / (count * (count - 1))
