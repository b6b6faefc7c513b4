"""The cell space of NAS-Bench-201 (arXiv 2001.00326): 5 operations on the 6 edges between 4 nodes, 15,625 networks.

Node 0 is the input of a cell and node 3 its output; a node is the sum of its edges. Genes: the operations of edges
0->1, 0->2, 1->2, 0->3, 1->3, 2->3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vtk_cli.errors import UserError, nearest
from vtk_cli.models.spaces.cost import Cost, CostTable, convolution, halved, linear, normalisation, total
from vtk_cli.models.spaces.genes import Genes, single_gene
from vtk_cli.models.spaces.space import STAND_ALONE, SUPERNET, Form, Shape, Space

if TYPE_CHECKING:
    from vtk_cli.models.spaces.nasbench201_network import CellNetwork, CellSupernet

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV_1, CONV_3, AVG_POOL = range(5)
KERNELS = {CONV_1: 1, CONV_3: 3}
"""Side of a convolution's kernel by operation."""

NODES = 4
EDGES = tuple((source, node) for node in range(1, NODES) for source in range(node))
"""The (source, node) of each gene."""
STAGES = 3
"""Stacks of cells; from one to the next a residual block halves the map and doubles the width."""


class CellSpace(Space):
    """NAS-Bench-201's topology space."""

    def __init__(self) -> None:
        positions = tuple(single_gene(number, tuple(range(len(OPERATIONS)))) for number in range(len(EDGES)))
        form = Form(resolution=32, width=16, cells=5)
        super().__init__(
            "nasbench201",
            "cells of NAS-Bench-201: 5 operations on 6 edges, 15,625 networks (6 genes)",
            positions,
            {SUPERNET: form, STAND_ALONE: form},
        )

    def read(self, text: str) -> Genes:
        """Genes as integers, or `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`: by node, each operation's source."""
        if "~" not in text:
            return super().read(text)
        nodes = text.strip().split("+")
        if len(nodes) != NODES - 1:
            raise _unreadable(text, f"it has {len(nodes)} nodes, not {NODES - 1}")
        return tuple(gene for node, part in enumerate(nodes, 1) for gene in _node_genes(text, node, part))

    def format(self, genes: Sequence[int]) -> str:
        """The benchmark's own text, as `read` describes it."""
        parts = [
            "".join(f"|{OPERATIONS[gene]}~{s}" for gene, (s, n) in zip(genes, EDGES, strict=True) if n == node) + "|"
            for node in range(1, NODES)
        ]
        return "+".join(parts)

    def table(self, shape: Shape) -> CostTable:
        """The cost of every operation on every edge, over all cells."""
        width, cells = shape.width, shape.cells
        stages, fixed, side = [], convolution(3, width, 3, shape.resolution) + normalisation(width), shape.resolution
        for stage in range(STAGES):
            if stage:
                side = halved(side)
                fixed += _residual_cost(width, side)
                width *= 2
            stages.append((width, side))
        choices = {
            operation: total(
                _operation_cost(operation, *stage, affine=shape.form != SUPERNET)
                for stage in stages
                for _ in range(cells)
            )
            for operation in range(len(OPERATIONS))
        }
        fixed += normalisation(width) + linear(width, shape.classes)
        return CostTable(fixed, (choices,) * len(EDGES))

    def official_macs(self, genes: Genes, shape: Shape) -> int:
        """See `Space`: the benchmark counts the bias of the classifier too."""
        return self.cost(genes, shape).macs + shape.classes

    def supernet(self, shape: Shape) -> CellSupernet:
        """All operations of all edges; normalisations inside the cells have no parameters."""
        from vtk_cli.models.spaces.nasbench201_network import CellSupernet

        return CellSupernet(self, shape)

    def network(self, genes: Genes, shape: Shape, *, drop_path: float = 0.0, auxiliary: bool = False) -> CellNetwork:
        """The network whose accuracy the benchmark holds."""
        from vtk_cli.models.spaces.nasbench201_network import CellNetwork

        self.require_network(genes, shape)
        self.refuse_extras(drop_path, auxiliary=auxiliary)
        return CellNetwork(genes, shape)


def _operation_cost(operation: int, width: int, side: int, *, affine: bool) -> Cost:
    if operation not in KERNELS:
        return Cost()
    return convolution(width, width, KERNELS[operation], side) + normalisation(width, affine=affine)


def _residual_cost(width: int, side: int) -> Cost:
    """Of the block from `width` to twice that; its output is `side` x `side`."""
    wide = 2 * width
    convolutions = convolution(width, wide, 3, side) + convolution(wide, wide, 3, side)
    return convolutions + normalisation(wide) + normalisation(wide) + convolution(width, wide, 1, side)


def _node_genes(text: str, node: int, part: str) -> Genes:
    edges = re.fullmatch(r"\|((?:[^|~+]+~\d+\|)+)", part.strip())
    listed = [tuple(edge.split("~")) for edge in edges[1].rstrip("|").split("|")] if edges else []
    if [source for _, source in listed] != [str(source) for source in range(node)]:
        raise _unreadable(text, f"node {node} must name the sources 0..{node - 1} in order")
    for operation, _ in listed:
        if operation not in OPERATIONS:
            known = nearest(operation, OPERATIONS) or f"there are {', '.join(OPERATIONS)}"
            raise _unreadable(text, f"unknown operation {operation!r}, {known}")
    return tuple(OPERATIONS.index(operation) for operation, _ in listed)


def _unreadable(text: str, why: str) -> UserError:
    return UserError(f"{text!r} is no architecture of nasbench201", fix=why)
