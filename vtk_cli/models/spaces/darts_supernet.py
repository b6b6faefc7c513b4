"""The supernet of DARTS cells (arXiv 2305.08611), and the vector of an architecture's weights (arXiv 2101.11834).

State names are those of the released checkpoints: `cells.0._ops.3._ops.4.op.1.weight` is the first depthwise
convolution of operation 4 on edge 3 of cell 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.models.spaces.darts import STEM_MULTIPLIER, CellPlan, cell_plans
from vtk_cli.models.spaces.darts_operations import operation_module, preprocessing, small_image_stem
from vtk_cli.models.spaces.genotypes import (
    EDGES,
    INNER,
    LENGTH,
    NONE,
    OPERATIONS,
    POOLS,
    SEP_3,
    SEP_5,
    SKIP,
    Edge,
    active_edges,
    cell_paths,
)
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.models.spaces.supernet import Choice, Supernet

_OPERATION = re.compile(r"cells\.(\d+)\._ops\.(\d+)\._ops\.(\d+)\.(.*)")
_PATHS = tuple(tuple(EDGES.index(Edge(node, source)) for source, node in pairwise(path)) for path in cell_paths())
"""The ways through a cell as numbers of edges."""


class MixedEdge(nn.Module):
    """All operations of an edge; pooling is followed by batch normalisation, `none` does nothing."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList(_edge_operation(operation, width, stride) for operation in range(len(OPERATIONS)))

    def forward(self, x: Tensor, operation: int) -> Tensor:
        """The operation of that number, on (B, width, H, W)."""
        out: Tensor = self._ops[operation](x)
        return out


class SharedCell(nn.Module):
    """A cell that holds all operations of all edges."""

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        self.preprocess0, self.preprocess1 = preprocessing(plan)
        self._ops = nn.ModuleList(MixedEdge(plan.width, plan.stride(edge)) for edge in range(LENGTH))

    def forward(self, older: Tensor, newer: Tensor, cell: Sequence[int]) -> Tensor:
        """The inner nodes side by side; edges that are not there cost nothing.

        Args:
            older: output of the cell before the one before this.
            newer: output of the cell before this.
            cell: the 14 genes of this kind of cell.
        """
        nodes = [self.preprocess0(older), self.preprocess1(newer)]
        edges = [(number, edge, cell[number]) for number, edge in enumerate(EDGES) if cell[number] != NONE]
        for node in INNER:
            first, second = (self._ops[number](nodes[e.source], op) for number, e, op in edges if e.node == node)
            nodes.append(first + second)
        return torch.cat(nodes[2:], dim=1)


class DartsSupernet(Supernet):
    """Stem, cells that hold every operation, average pooling, linear classifier."""

    def __init__(self, space: Space, shape: Shape) -> None:
        super().__init__(space, shape)
        self._plans = cell_plans(shape)
        self.stem = small_image_stem(STEM_MULTIPLIER * (shape.width))
        self.cells = nn.ModuleList(SharedCell(plan) for plan in self._plans)
        self.classifier = nn.Linear(self._plans[-1].outputs, shape.classes)

    def forward(self, images: Tensor, genes: Sequence[int]) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W) through the cells that 28 genes choose."""
        older = newer = self.stem(images)
        for plan, cell in zip(self._plans, self.cells, strict=True):
            older, newer = newer, cell(older, newer, _genes_of_cell(plan, genes))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(newer, 1).flatten(1))
        return logits

    def choice_of(self, name: str) -> Choice | None:
        """The gene of the edge in this kind of cell, and the operation."""
        match = _OPERATION.match(name)
        if match is None:
            return None
        cell, edge, operation = (int(number) for number in match.groups()[:3])
        return edge + (LENGTH if self._plans[cell].reduces else 0), operation

    def stand_alone_state(self, genes: Sequence[int]) -> dict[str, Tensor]:
        """See `Supernet`; networks that stand alone have no normalisation after pooling.

        So the network computes what the path computes where no gene is a pooling; where one is, the path applies one
        batch normalisation more, which the state leaves out.
        """
        state = {}
        for name, value in self.state_dict().items():
            match = _OPERATION.match(name)
            if match is None:
                state[name] = value
            elif self._active(name, genes):
                cell, edge, operation = (int(number) for number in match.groups()[:3])
                there = [e for e, _ in active_edges(_genes_of_cell(self._plans[cell], genes))]
                if operation not in POOLS:
                    state[f"cells.{cell}._ops.{there.index(EDGES[edge])}.{match[4]}"] = value
        return state

    def vectors(self, genes: Sequence[int], state: Mapping[str, Tensor], *, official_quirks: bool = False) -> Tensor:
        """The weights along each of the 30 ways through each cell, then stem, preprocessing and classifier.

        A way with an absent edge is left out whole. An operation without weights has fixed ones: pooling a kernel of
        1/9 for each channel (and its batch normalisation), a skip of stride 1 an identity matrix. The released code
        takes the beta of a dilated convolution from its gamma; `official_quirks` does so too.
        """
        along_paths: list[Tensor] = []
        around: list[Tensor] = [state[f"stem.{name}"] for name in ("0.weight", "1.weight", "1.bias")]
        for number, plan in enumerate(self._plans):
            cell = _genes_of_cell(plan, genes)
            weights = {
                edge: self._operation_vector(number, edge, cell[edge], state, official_quirks=official_quirks)
                for edge in range(LENGTH)
                if cell[edge] != NONE
            }
            for path in _PATHS:
                if all(edge in weights for edge in path):
                    along_paths += [weights[edge] for edge in path]
            around += _reduction(f"cells.{number}.preprocess0.", state) if plan.after_reduction else []
            around += [] if plan.after_reduction else _pointwise(f"cells.{number}.preprocess0.", state)
            around += _pointwise(f"cells.{number}.preprocess1.", state)
        return _flat([*along_paths, *around, state["classifier.weight"]])

    def _operation_vector(
        self, cell: int, edge: int, operation: int, state: Mapping[str, Tensor], *, official_quirks: bool
    ) -> Tensor:
        prefix, plan = f"cells.{cell}._ops.{edge}._ops.{operation}.", self._plans[cell]
        like = state["classifier.weight"]
        if operation in POOLS:
            kernel = like.new_full((plan.width, 3, 3), 1 / 9)
            return _flat([kernel, state[f"{prefix}1.weight"], state[f"{prefix}1.bias"]])
        if operation == SKIP:
            identity = torch.eye(plan.width, dtype=like.dtype, device=like.device)
            return _flat([identity] if plan.stride(edge) == 1 else _reduction(prefix, state))
        if operation in (SEP_3, SEP_5):
            names = ["1.weight", "2.weight", "5.weight", "6.weight", "3.weight", "3.bias", "7.weight", "7.bias"]
        else:
            names = ["1.weight", "2.weight", "3.weight", "3.weight" if official_quirks else "3.bias"]
        return _flat([state[f"{prefix}op.{name}"] for name in names])


def _edge_operation(operation: int, width: int, stride: int) -> nn.Module:
    if operation == NONE:
        return nn.Identity()  # holds the place; never run
    module = operation_module(operation, width, stride)
    return nn.Sequential(module, nn.BatchNorm2d(width)) if operation in POOLS else module


def _genes_of_cell(plan: CellPlan, genes: Sequence[int]) -> Sequence[int]:
    return genes[LENGTH:] if plan.reduces else genes[:LENGTH]


def _reduction(prefix: str, state: Mapping[str, Tensor]) -> list[Tensor]:
    return [state[prefix + name] for name in ("conv_1.weight", "conv_2.weight", "bn.weight", "bn.bias")]


def _pointwise(prefix: str, state: Mapping[str, Tensor]) -> list[Tensor]:
    return [state[f"{prefix}op.{name}"] for name in ("1.weight", "2.weight", "2.bias")]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
