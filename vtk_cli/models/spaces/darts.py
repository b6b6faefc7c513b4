"""The space of DARTS cells (arXiv 1806.09055) as GeNAS searches it (arXiv 2305.08611): 28 genes, 14 for each cell.

Gene i of the normal cell and gene 14 + i of the reduction cell are the operations of edge i; see `genotypes.py`. The
stack of cells: two of them, at a third and at two thirds, are reduction cells, which halve the map and double the
width; every cell puts out its four inner nodes side by side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from typing import TYPE_CHECKING

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.cost import (
    Cost,
    CostTable,
    convolution,
    depthwise,
    halved,
    linear,
    normalisation,
    total,
)
from vtk_cli.models.spaces.genes import Genes, Position
from vtk_cli.models.spaces.genotypes import (
    EDGES,
    INNER,
    KERNELS,
    LENGTH,
    NONE,
    OPERATIONS,
    POOLS,
    RELEASED,
    SEP_3,
    SEP_5,
    SKIP,
    genes_of,
)
from vtk_cli.models.spaces.space import SUPERNET, Form, Shape, Space

if TYPE_CHECKING:
    from numpy.random import Generator

    from vtk_cli.models.spaces.darts_network import DartsNetwork
    from vtk_cli.models.spaces.darts_supernet import DartsSupernet

CIFAR, IMAGENET = "cifar", "imagenet"
STEM_MULTIPLIER = 3
"""Channels of the stem for small images, over those of the first cell."""


@dataclass(frozen=True)
class CellPlan:
    """Where a cell stands in the stack.

    Args:
        inputs: channels of the outputs of the cell before the one before it, and of the one before it.
        width: channels of each of its nodes.
        reduces: whether it halves the map.
        after_reduction: whether its older input is twice as large as its newer one.
        side: of its newer input, in cells of the map.
    """

    inputs: tuple[int, int]
    width: int
    reduces: bool
    after_reduction: bool
    side: int

    @property
    def outputs(self) -> int:
        """Channels of its output."""
        return len(INNER) * self.width

    def stride(self, edge: int) -> int:
        """The stride of edge number `edge`: 2 from the inputs of a reduction cell."""
        return 2 if self.reduces and EDGES[edge].source < 2 else 1

    @property
    def side_of_nodes(self) -> int:
        """The side of its inner nodes' maps."""
        return halved(self.side) if self.reduces else self.side


def reductions(cells: int) -> tuple[int, int]:
    """Which cells of a stack reduce."""
    return cells // 3, 2 * cells // 3


@lru_cache(maxsize=64)
def cell_plans(shape: Shape) -> tuple[CellPlan, ...]:
    """The cells of a network of the given shape, in order."""
    side, width, cells = shape.resolution, shape.width, shape.cells
    older = newer = STEM_MULTIPLIER * width
    after_reduction, plans = False, []
    if shape.form == IMAGENET:
        side, older, newer, after_reduction = halved(halved(halved(side))), width, width, True
    for number in range(cells):
        reduces = number in reductions(cells)
        width *= 2 if reduces else 1
        plans.append(CellPlan((older, newer), width, reduces, after_reduction, side))
        older, newer = newer, plans[-1].outputs
        side, after_reduction = halved(side) if reduces else side, reduces
    return tuple(plans)


class InnerNode(Position):
    """The genes of an inner node: of its possible edges exactly two are there."""

    def repaired(self, stretch: Genes, rng: Generator) -> Genes:
        """Take away edges at random from a node with too many, give random operations to one with too few.

        Source: the released code of arXiv 2305.08611 (`check_cand`).
        """
        genes = list(stretch)
        there = [at for at, gene in enumerate(genes) if gene != NONE]
        absent = [at for at, gene in enumerate(genes) if gene == NONE]
        for at in rng.permutation(len(there))[: max(len(there) - 2, 0)]:
            genes[there[int(at)]] = NONE
        for at in rng.permutation(len(absent))[: max(2 - len(there), 0)]:
            genes[absent[int(at)]] = 1 + int(rng.integers(len(OPERATIONS) - 1))
        return tuple(genes)

    def complaint(self, stretch: Genes) -> str:
        """How many inputs the node has."""
        count = sum(gene != NONE for gene in stretch)
        return f"{self.place} has {count} input{'s' * (count != 1)}, a node has exactly 2"


class DartsSpace(Space):
    """The space of pairs of DARTS cells, 1,037,664,180 of each kind."""

    def __init__(self) -> None:
        super().__init__(
            "darts",
            "cells of DARTS: 8 operations on 14 edges, a normal and a reduction cell (28 genes)",
            _positions(),
            {
                SUPERNET: Form(resolution=32, width=16, cells=8),
                CIFAR: Form(resolution=32, width=36, cells=20),
                IMAGENET: Form(resolution=224, width=48, cells=14),
            },
            least_cells=3,
            released=RELEASED,
        )

    def read(self, text: str) -> Genes:
        """Genes as integers, or a genotype as JSON: {"normal": [["sep_conv_3x3", 0], ...], "reduce": [...]}."""
        if not text.lstrip().startswith("{"):
            return super().read(text)
        try:
            cells = json.loads(text)
            return genes_of(cells["normal"], cells["reduce"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            what = "is no genotype of darts"
            raise UserError(what, text, 'write {"normal": [["sep_conv_3x3", 0], ...], "reduce": [...]}') from error

    def format(self, genes: Sequence[int]) -> str:
        """`3 6 ... 3 | 5 2 ... 7`: the normal cell and the reduction cell."""
        return " | ".join(super(DartsSpace, self).format(cell) for cell in (genes[:LENGTH], genes[LENGTH:]))

    def table(self, shape: Shape) -> CostTable:
        """The cost of every operation on every edge, over all cells of the kind."""
        plans = cell_plans(shape)
        pool_norm = shape.form == SUPERNET
        genes = tuple(
            {
                operation: total(
                    operation_cost(operation, plan, edge, pool_norm=pool_norm)
                    for plan in plans
                    if plan.reduces == reduces
                )
                for operation in range(len(OPERATIONS))
            }
            for reduces in (False, True)
            for edge in range(LENGTH)
        )
        fixed = total((_stem_cost(shape), linear(plans[-1].outputs, shape.classes), *map(_preprocess_cost, plans)))
        return CostTable(fixed, genes)

    def official_macs(self, genes: Genes, shape: Shape) -> int:
        """See `Space`: the released code of GeNAS counts the additions of the classifier too."""
        features = cell_plans(shape)[-1].outputs
        return self.cost(genes, shape).macs + (features - 1) * shape.classes

    def fit_width(self, genes: Genes, macs: float, shape: Shape) -> Shape:
        """The shape with the even width at which the network of `genes` costs nearest to `macs` multiply-accumulates.

        The authors of GeNAS so bring every network they retrain near 600 M.

        Args:
            genes: of the architecture.
            macs: the target, in multiply-accumulates of one image.
            shape: all but the width.
        """
        self.validate(genes)
        width, nearest_shape, distance = 2, shape, float("inf")
        while True:
            tried = self.shape(shape.form, shape.classes, resolution=shape.resolution, width=width, cells=shape.cells)
            excess = self.cost(genes, tried).macs - macs
            if abs(excess) < distance:
                nearest_shape, distance = tried, abs(excess)
            if excess >= 0:
                return nearest_shape
            width += 2

    def supernet(self, shape: Shape) -> DartsSupernet:
        """The CIFAR supernet of GeNAS, with its names of weights."""
        from vtk_cli.models.spaces.darts_supernet import DartsSupernet

        return DartsSupernet(self, shape)

    def network(self, genes: Genes, shape: Shape, *, drop_path: float = 0.0, auxiliary: bool = False) -> DartsNetwork:
        """The network to train from scratch, for CIFAR or ImageNet, with the names of weights of GeNAS."""
        from vtk_cli.models.spaces.darts_network import DartsNetwork

        self.require_network(genes, shape)
        return DartsNetwork(genes, shape, drop_path=drop_path, auxiliary=auxiliary)

    def _check(self, shape: Shape) -> None:
        super()._check(shape)
        if shape.width % 2:
            raise UserError("the width must be even", f"width {shape.width}", f"give {shape.width + 1}")


def operation_cost(operation: int, plan: CellPlan, edge: int, *, pool_norm: bool) -> Cost:
    """What an operation costs on an edge.

    Args:
        operation: its number.
        plan: of the cell.
        edge: number of the edge.
        pool_norm: whether pooling is followed by batch normalisation, as in the supernet.
    """
    width, stride, out = plan.width, plan.stride(edge), plan.side_of_nodes
    norm, pointwise = normalisation(width), convolution(width, width, 1, out)
    if operation in POOLS:
        return norm if pool_norm else Cost()
    if operation == SKIP:
        return Cost() if stride == 1 else pointwise + norm  # two convolutions, each of half the channels
    if operation == NONE:
        return Cost()
    once = depthwise(width, KERNELS[operation], out) + pointwise + norm
    return once + once if operation in (SEP_3, SEP_5) else once


def _preprocess_cost(plan: CellPlan) -> Cost:
    return total(convolution(inputs, plan.width, 1, plan.side) + normalisation(plan.width) for inputs in plan.inputs)


def _stem_cost(shape: Shape) -> Cost:
    width, side = shape.width, shape.resolution
    if shape.form != IMAGENET:
        stem = STEM_MULTIPLIER * width
        return convolution(3, stem, 3, side) + normalisation(stem)
    half, quarter, eighth = halved(side), halved(halved(side)), halved(halved(halved(side)))
    parts = ((3, width // 2, half), (width // 2, width, quarter), (width, width, eighth))
    return total(convolution(inputs, outputs, 3, out) + normalisation(outputs) for inputs, outputs, out in parts)


def _positions() -> tuple[Position, ...]:
    return tuple(
        InnerNode(
            start=first + [edge.node for edge in EDGES].index(node),
            alphabets=(tuple(range(len(OPERATIONS))),) * node,
            options=tuple(_two_edges(node)),
            place=f"node {node} of the {cell} cell",
        )
        for cell, first in (("normal", 0), ("reduction", LENGTH))
        for node in INNER
    )


def _two_edges(node: int) -> list[Genes]:
    """Every way of giving `node` two edges, each with an operation."""
    real = range(1, len(OPERATIONS))
    return [
        tuple({sources[0]: a, sources[1]: b}.get(source, NONE) for source in range(node))
        for sources in combinations(range(node), 2)
        for a, b in product(real, real)
    ]
