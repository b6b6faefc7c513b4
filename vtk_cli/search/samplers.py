"""Which paths of a supernet a training step runs. What is drawn depends on a seed alone: no generator has to be saved.

The seed of a step is made of the run's seed and the step, which checkpoints hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.cost import Bin, CostRange, in_millions
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Shape, Space

SPOS_BINS: tuple[Bin, ...] = tuple((low * 1e6, (low + 10) * 1e6) for low in range(290, 360, 10))
"""Those of the ShuffleNets of arXiv 1904.00420."""

_TRIES = 500


@dataclass(frozen=True)
class Path:
    """A path that a step runs.

    Args:
        genes: of the architecture.
        resting: (gene, value) of the choices on it whose weights get no gradient, since they had theirs in this step.
    """

    genes: Genes
    resting: frozenset[tuple[int, int]] = field(default=frozenset())


class PathSampler(Protocol):
    """Chooses the paths of a step."""

    def paths(self, seed: int) -> list[Path]:
        """The paths of the step with this seed, one or more; their gradients are summed."""


@dataclass(frozen=True)
class UniformSampler:
    """One path, each architecture as likely as every other (single path, arXiv 1904.00420).

    Args:
        space: whose architectures.
    """

    space: Space

    def paths(self, seed: int) -> list[Path]:
        """See `PathSampler`."""
        return [Path(self.space.sample(np.random.default_rng(seed)))]


@dataclass(frozen=True)
class FairSampler:
    """As many paths as a layer has choices, so that every choice of every layer gets one gradient (arXiv 1907.01845).

    The choices of each layer are put in a row at random, and path i takes the i-th of every layer. A layer with fewer
    choices than others takes further ones at random, which are run but get no second gradient.

    Args:
        space: one whose layers are chosen independently.

    Raises:
        UserError: it is another.
    """

    space: Space

    def __post_init__(self) -> None:
        if not self.space.independent:
            what = f"strict fairness needs layers that are chosen by themselves, which {self.space.name} has not"
            raise UserError(what, "--sampler fair", "use --sampler uniform")

    def paths(self, seed: int) -> list[Path]:
        """See `PathSampler`."""
        rng, most = np.random.default_rng(seed), max(map(len, self.space.choices))
        rows = []
        for choices in self.space.choices:
            order = [choices[at] for at in rng.permutation(len(choices))]
            rows.append(order + [choices[int(rng.integers(len(choices)))] for _ in range(most - len(choices))])
        return [self._path(rows, number) for number in range(most)]

    def _path(self, rows: Sequence[Sequence[int]], number: int) -> Path:
        genes = tuple(row[number] for row in rows)
        again = {(gene, value) for gene, value in enumerate(genes) if number >= len(self.space.choices[gene])}
        return Path(genes, frozenset(again))


class FlopsSampler:
    """One path, whose cost falls in a bin chosen at random (the released code of arXiv 1904.00420).

    Paths are drawn until one falls in the bin, 500 at most; then the last one is taken.

    Args:
        space: whose architectures.
        shape: of the networks whose cost counts.
        bins: of multiply-accumulates, one or more.

    Raises:
        UserError: there is no bin, or one is empty or lies outside of what the space has.
    """

    def __init__(self, space: Space, shape: Shape, bins: Sequence[Bin]) -> None:
        self.space, self.bins, self._table = space, tuple(bins), space.table(shape)
        if not bins:
            raise UserError("sampling by cost needs bins", "--flops-bins", "give e.g. 290M-300M")
        least, most = space.cost_range(shape).macs
        for low, high in bins:
            if not low < high or high <= least or low > most:
                what = f"the bin {in_millions(low)} to {in_millions(high)} holds no network of {space.name}"
                fix = f"attainable are {in_millions(least)} to {in_millions(most)}"
                raise UserError(what, "--flops-bins", fix)

    def paths(self, seed: int) -> list[Path]:
        """See `PathSampler`."""
        rng = np.random.default_rng(seed)
        low, high = self.bins[int(rng.integers(len(self.bins)))]
        genes = self.space.sample(rng)
        for _ in range(_TRIES - 1):
            if low <= self._table.cost(genes).macs < high:
                break
            genes = self.space.sample(rng)
        return [Path(genes)]


def default_bins(space: Space, shape: Shape) -> tuple[Bin, ...]:
    """Those of SPOS for its ShuffleNets on images as large as its own; else ten over what the space has."""
    if space.name == "shufflenetv2" and shape.resolution == space.forms[space.alone].resolution:
        return SPOS_BINS
    return equal_bins(space.cost_range(shape))


def equal_bins(attainable: CostRange, count: int = 10) -> tuple[Bin, ...]:
    """`count` bins of one width from the cheapest to the dearest network of a space."""
    low, high = attainable.macs[0], attainable.macs[1] + 1
    edges = np.linspace(low, high, count + 1).tolist()
    return tuple(pairwise(edges))
