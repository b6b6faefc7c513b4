"""Networks of NAS-Bench-201 (arXiv 2001.00326): the supernet, and the network of one architecture.

Initialised as PyTorch does by default, as in the benchmark. A node without any edge is zero, and convolutions on it
still run, as in the benchmark: with an affine normalisation they put out its beta.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.models.spaces.darts_operations import ReluConvNorm, small_image_stem
from vtk_cli.models.spaces.nasbench201 import (
    AVG_POOL,
    EDGES,
    KERNELS,
    NODES,
    NONE,
    OPERATIONS,
    SKIP,
    STAGES,
)
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.models.spaces.stand_alone import FeatureMap, StandAlone
from vtk_cli.models.spaces.supernet import Choice, Supernet, with_affine

_OPERATION = re.compile(r"cells\.(\d+)\.edges\.(\d)<-(\d)\.(\d)\.(.*)")
_PATHS = ((0, 3), (0, 2, 3), (0, 1, 2, 3), (0, 1, 3))
"""The ways through a cell."""


class SharedCell(nn.Module):
    """A cell that holds all operations of all edges; convolutions are followed by normalisation without parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                _edge_name(source, node): nn.ModuleList(
                    _operation(operation, width, affine=False) for operation in range(len(OPERATIONS))
                )
                for source, node in EDGES
            }
        )

    def forward(self, x: Tensor, genes: Sequence[int]) -> Tensor:
        """The last node, from (B, width, H, W) to the same."""
        operations: list[nn.Module | None] = []
        for gene, (source, node) in zip(genes, EDGES, strict=True):
            choices = self.edges[_edge_name(source, node)]
            assert isinstance(choices, nn.ModuleList)  # noqa: S101 - as built above
            operations.append(None if gene == NONE else choices[gene])
        return _last_node(x, operations)


class Cell(nn.Module):
    """A cell with the operations that its genes name."""

    def __init__(self, width: int, genes: Sequence[int]) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                _edge_name(*edge): _operation(gene, width, affine=True)
                for gene, edge in zip(genes, EDGES, strict=True)
                if gene != NONE
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """The last node, from (B, width, H, W) to the same."""
        there = dict(self.edges.items())
        return _last_node(x, [there.get(_edge_name(*edge)) for edge in EDGES])


class ResidualBlock(nn.Module):
    """Two convolutions and a pooled shortcut; halves the map and doubles the width. An odd side is rounded up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_a = ReluConvNorm(width, 2 * width, kernel=3, stride=2)
        self.conv_b = ReluConvNorm(2 * width, 2 * width, kernel=3)
        self.downsample = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(width, 2 * width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, 2 width, ceil(H / 2), ceil(W / 2))."""
        out: Tensor = self.downsample(x) + self.conv_b(self.conv_a(x))
        return out


class CellSupernet(Supernet):
    """Stem, three stages of cells with a residual block between them, BN, ReLU, average pooling, linear classifier."""

    def __init__(self, space: Space, shape: Shape) -> None:
        super().__init__(space, shape)
        width, cells = shape.width, shape.cells
        self.stem = small_image_stem(width)
        self.cells = nn.ModuleList(_stack(width, cells, SharedCell))
        self.lastact = nn.Sequential(nn.BatchNorm2d(width * 2 ** (STAGES - 1)), nn.ReLU())
        self.classifier = nn.Linear(width * 2 ** (STAGES - 1), shape.classes)

    def forward(self, images: Tensor, genes: Sequence[int]) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W) through cells of the architecture."""
        x = self.stem(images)
        for cell in self.cells:
            x = cell(x, genes) if isinstance(cell, SharedCell) else cell(x)
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(self.lastact(x), 1).flatten(1))
        return logits

    def choice_of(self, name: str) -> Choice | None:
        """The gene of the edge, and the operation."""
        match = _OPERATION.match(name)
        return (EDGES.index((int(match[3]), int(match[2]))), int(match[4])) if match else None

    def stand_alone_state(self, genes: Sequence[int]) -> dict[str, Tensor]:
        """See `Supernet`; the network computes what the path computes."""
        state = {
            _OPERATION.sub(r"cells.\1.edges.\2<-\3.\5", name): value
            for name, value in self.state_dict().items()
            if self._active(name, genes)
        }
        return with_affine(state)

    def vectors(
        self,
        genes: Sequence[int],
        state: Mapping[str, Tensor],
        *,
        official_quirks: bool = False,  # noqa: ARG002 - the released code of this space has none
    ) -> Tensor:
        """The weights along the ways 0-3, 0-2-3, 0-1-2-3 and 0-1-3 through each cell, and all weights around them.

        A way with a `none` is left out; a skip adds nothing, pooling a kernel of 1/9 for each channel. Empty if every
        way has a `none`. Source: the released code of arXiv 2101.11834.
        """
        by_edge = dict(zip(EDGES, genes, strict=True))
        ways = [tuple(pairwise(path)) for path in _PATHS]
        open_ways = [way for way in ways if all(by_edge[edge] != NONE for edge in way)]
        if not open_ways:
            return state["classifier.weight"].new_empty(0)
        around = [state[name] for name, _ in self.named_parameters() if self.choice_of(name) is None]
        along = [
            tensor
            for number, cell in enumerate(self.cells)
            if isinstance(cell, SharedCell)
            for way in open_ways
            for source, node in way
            for tensor in self._weights(f"cells.{number}.edges.{node}<-{source}.", by_edge[source, node], state)
        ]
        return torch.cat([tensor.reshape(-1) for tensor in (*along, *around)])

    def _weights(self, edge: str, operation: int, state: Mapping[str, Tensor]) -> list[Tensor]:
        if operation in KERNELS:
            return [state[f"{edge}{operation}.op.1.weight"]]
        if operation == AVG_POOL:
            like = state[f"{edge}2.op.1.weight"]
            return [like.new_full((like.shape[0], 3, 3), 1 / 9)]
        return []


class CellNetwork(StandAlone):
    """The network of one architecture.

    Args:
        genes: 6 valid ones.
        shape: of the form `stand-alone`.
    """

    def __init__(self, genes: Sequence[int], shape: Shape) -> None:
        width, cells = shape.width, shape.cells
        super().__init__(tuple(FeatureMap(width * 2**stage, 2**stage) for stage in range(STAGES)))
        self.stem = small_image_stem(width)
        self.cells = nn.ModuleList(_stack(width, cells, lambda channels: Cell(channels, genes)))
        self.lastact = nn.Sequential(nn.BatchNorm2d(width * 2 ** (STAGES - 1)), nn.ReLU())
        self.classifier = nn.Linear(width * 2 ** (STAGES - 1), shape.classes)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The outputs of the three stages: C, 2C and 4C channels of the width C."""
        x, maps = self.stem(images), []
        for cell in self.cells:
            if isinstance(cell, ResidualBlock):
                maps.append(x)
            x = cell(x)
        return [*maps, x]

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from the output of the last stage."""
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(self.lastact(features), 1).flatten(1))
        return logits


def _edge_name(source: int, node: int) -> str:
    return f"{node}<-{source}"


def _operation(operation: int, width: int, *, affine: bool) -> nn.Module:
    if operation in KERNELS:
        return ReluConvNorm(width, width, KERNELS[operation], affine=affine)
    # The first keeps the place of `none`, which is never run.
    return nn.Identity() if operation in (NONE, SKIP) else nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)


def _last_node(x: Tensor, operations: Sequence[nn.Module | None]) -> Tensor:
    nodes = [x]
    for node in range(1, NODES):
        terms = [
            operation(nodes[source])
            for operation, (source, target) in zip(operations, EDGES, strict=True)
            if target == node and operation is not None
        ]
        nodes.append(sum(terms[1:], terms[0]) if terms else torch.zeros_like(x))
    return nodes[-1]


def _stack(width: int, cells: int, cell: Callable[[int], nn.Module]) -> Iterable[nn.Module]:
    for stage in range(STAGES):
        if stage:
            yield ResidualBlock(width * 2 ** (stage - 1))
        yield from (cell(width * 2**stage) for _ in range(cells))
