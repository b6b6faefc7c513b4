"""How real samples are and how much of the real data they cover, by nearest neighbours.

Precision and recall: arXiv 1904.06991, Equations 1 and 2. Density and coverage: arXiv 2002.09797, Equations 3 and 4.
Balls are closed, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 3
"""The k of arXiv 1904.06991; the published code of arXiv 2212.08311 takes 5."""

_BLOCK = 1024
_ROUNDING = 2.0**-40
"""Of the largest squared norm: what squared distances computed by products may be off by in float64, generously."""


@dataclass(frozen=True)
class Fidelity:
    """What nearest neighbours say of samples.

    Args:
        precision: the share of fakes inside a real ball, 0..1.
        recall: the share of reals inside a fake ball, 0..1.
        density: in how many real balls a fake lies, over k; may exceed 1.
        coverage: the share of real balls that hold a fake, 0..1.
        k: a ball reaches to the k-th nearest of its own set.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def fidelity(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> Fidelity:
    """Precision, recall, density and coverage.

    The distance matrices are made in blocks of rows; memory grows with N and M, not with N M.

    Args:
        real: (N, D) features, N > k.
        fake: (M, D) features, M > k.
        k: which neighbour a ball reaches to.

    Raises:
        ValueError: `k` is below 1, or a set has no k-th neighbour.
    """
    if k < 1 or min(len(real), len(fake)) <= k:
        raise ValueError(f"{len(real)} and {len(fake)} features have no neighbour {k}: at least {k + 1} are needed")
    centre = real.to("cpu", torch.float64).mean(dim=0)
    real, fake = (features.to("cpu", torch.float64) - centre for features in (real, fake))
    slack = _ROUNDING * float(torch.cat((real, fake)).square().sum(dim=1).max())
    real_radii, fake_radii = _squared_radii(real, k) + slack, _squared_radii(fake, k) + slack
    in_real = torch.zeros(len(fake), dtype=torch.int64)
    covered, recalled = [], []
    for rows, distances in _blocks(real, fake):
        inside = distances <= real_radii[rows, None]
        in_real += inside.sum(dim=0)
        covered.append(inside.any(dim=1))
        recalled.append((distances <= fake_radii).any(dim=1))
    return Fidelity(
        precision=_share(in_real > 0),
        recall=_share(torch.cat(recalled)),
        density=float(in_real.sum()) / (k * len(fake)),
        coverage=_share(torch.cat(covered)),
        k=k,
    )


def _squared_radii(features: Tensor, k: int) -> Tensor:
    """(N,) the squared distance of each feature to its k-th nearest other."""
    radii = []
    for rows, distances in _blocks(features, features):
        distances[torch.arange(len(distances)), torch.arange(rows.start, rows.stop)] = -1  # each is its own nearest
        radii.append(distances.kthvalue(k + 1, dim=1).values)
    return torch.cat(radii)


def _blocks(first: Tensor, second: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The squared distances (B, M) of a few rows of `first` (N, D) to all of `second` (M, D), and which rows."""
    norms = second.square().sum(dim=1)
    for start in range(0, len(first), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(first)))
        block = first[rows]
        yield rows, (block.square().sum(dim=1, keepdim=True) + norms - 2 * block @ second.T).clamp_(min=0)


def _share(flags: Tensor) -> float:
    return float(flags.to(torch.float64).mean())
