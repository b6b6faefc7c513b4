"""Genotypes of DARTS cells (arXiv 1806.09055): genes as lists of (operation, source), and those published by GeNAS.

A cell has two inputs, the outputs of the two cells before it (0 and 1), and four inner nodes (2 to 5), each the sum of
two edges from earlier nodes. The genes of a cell are the operations of all 14 possible edges, those of node 2 first and
of a node those from the earliest source first; 0 is no edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from types import MappingProxyType

from vtk_cli.errors import UserError, nearest
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Released

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NONE, MAX_POOL, AVG_POOL, SKIP, SEP_3, SEP_5, DIL_3, DIL_5 = range(8)
POOLS = (MAX_POOL, AVG_POOL)
KERNELS = MappingProxyType({SEP_3: 3, SEP_5: 5, DIL_3: 3, DIL_5: 5})
"""Side of a convolution's kernel by operation."""

INNER = (2, 3, 4, 5)
"""The inner nodes of a cell; 0 and 1 are its inputs."""


@dataclass(frozen=True)
class Edge:
    """An edge of a cell, from node `source` to inner node `node`."""

    node: int
    source: int


EDGES = tuple(Edge(node, source) for node in INNER for source in range(node))
"""The 14 edges of a cell in the order of its genes; the first edge of each node is at 0, 2, 5 and 9."""
LENGTH = len(EDGES)

CellGenotype = tuple[tuple[str, int], ...]
"""The eight edges of a cell: two (operation, source) for each inner node."""


@dataclass(frozen=True)
class Genotype:
    """The two cells of an architecture as DARTS writes them."""

    normal: CellGenotype
    reduce: CellGenotype


def active_edges(cell: Sequence[int]) -> tuple[tuple[Edge, int], ...]:
    """The edges of a cell that are there, with their operations, in the order of the genes."""
    return tuple((edge, operation) for edge, operation in zip(EDGES, cell, strict=True) if operation != NONE)


def genotype_of(genes: Genes) -> Genotype:
    """The genotype of 28 valid genes, each node's sources ascending."""
    normal, reduce = (
        tuple((OPERATIONS[operation], edge.source) for edge, operation in active_edges(cell))
        for cell in (genes[:LENGTH], genes[LENGTH:])
    )
    return Genotype(normal, reduce)


def genes_of(normal: Sequence[Sequence[object]], reduce: Sequence[Sequence[object]]) -> Genes:
    """The 28 genes of two lists of (operation, source), two for each node from node 2 on.

    Raises:
        UserError: a list has not eight entries, an operation is unknown, or a node has a source that it cannot have or
            has it twice.
    """
    return _cell_genes("normal", normal) + _cell_genes("reduce", reduce)


def cell_paths() -> tuple[tuple[int, ...], ...]:
    """The 30 ways through a cell: ascending nodes, the first an input, the others inner ones.

    Source: the released code of arXiv 2305.08611, from that of arXiv 2101.11834.
    """
    inner = [nodes for count in range(1, len(INNER) + 1) for nodes in combinations(INNER, count)]
    return tuple((first, *nodes) for first, nodes in product((0, 1), inner))


def _cell_genes(cell: str, entries: Sequence[Sequence[object]]) -> Genes:
    place = f"the {cell} cell"
    if len(entries) != 2 * len(INNER):
        raise UserError(f"has {len(entries)} edges", place, "a cell has two for each of its four nodes")
    genes = [NONE] * LENGTH
    for number, entry in enumerate(entries):
        node = INNER[number // 2]
        try:
            name, source = entry
        except (TypeError, ValueError):
            raise UserError(f"{entry!r} is no edge", place, 'write ["sep_conv_3x3", 0]') from None
        if not isinstance(name, str) or name not in OPERATIONS[1:]:
            known = nearest(str(name), OPERATIONS[1:]) or f"there are {', '.join(OPERATIONS[1:])}"
            raise UserError(f"unknown operation {name!r}", place, known)
        if not isinstance(source, int) or not 0 <= source < node:
            raise UserError(f"node {node} cannot come from {source!r}", place, f"its sources are 0..{node - 1}")
        at = EDGES.index(Edge(node, source))
        if genes[at] != NONE:
            raise UserError(f"node {node} has two edges from {source}", place, "its two sources must differ")
        genes[at] = OPERATIONS.index(name)
    return tuple(genes)


def _released(normal: str, reduce: str, width: int, top1: float) -> Released:
    genes = tuple(int(operation) for operation in normal + reduce)
    return Released(genes, "imagenet", width, "GeNAS, arXiv 2305.08611", top1)


RELEASED = MappingProxyType(
    {
        "genas-flatness-cifar10": _released("36044066000043", "52064030600507", 52, 76.0),
        "genas-angle-flatness-cifar10": _released("54440450040004", "77230410000056", 44, 76.1),
        "genas-flatness-cifar100": _released("35044004504007", "63205050701100", 46, 76.1),
        "genas-angle-flatness-cifar100": _released("35140040404005", "64072130004007", 48, 75.7),
    }
)
"""What the authors of GeNAS found on CIFAR, with the width at which they trained it on ImageNet."""
