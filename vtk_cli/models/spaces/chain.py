"""Spaces of layers in a row: each layer takes one of its choices, whatever the others take."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from vtk_cli.models.spaces.cost import Cost, CostTable, halved
from vtk_cli.models.spaces.genes import Genes, Position
from vtk_cli.models.spaces.space import Form, Released, Shape, Space

if TYPE_CHECKING:
    from vtk_cli.models.spaces.chain_network import ChainNetwork, ChainParts, ChainSupernet


@dataclass(frozen=True)
class Layer:
    """A layer whose block is searched for.

    Args:
        inputs: its input's channels.
        outputs: its output's channels.
        stride: 1, or 2 where it halves the map.
    """

    inputs: int
    outputs: int
    stride: int


class ChainSpace(Space):
    """A space of layers in a row between a stem and a head that are fixed.

    Args:
        name: what users type.
        summary: what it is, in a line.
        choices: for each layer, the values of its gene.
        forms: see `Space`.
        input_channels: see `Space`.
        released: see `Space`.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        choices: tuple[Genes, ...],
        forms: Mapping[str, Form],
        *,
        input_channels: int = 3,
        released: Mapping[str, Released] = MappingProxyType({}),
    ) -> None:
        positions = tuple(
            Position(number, (alphabet,), tuple((choice,) for choice in alphabet), f"layer {number}")
            for number, alphabet in enumerate(choices)
        )
        super().__init__(name, summary, positions, forms, input_channels=input_channels, released=released)

    @abstractmethod
    def layers(self, shape: Shape) -> tuple[Layer, ...]:
        """The layers, in order."""

    @abstractmethod
    def stem_cost(self, shape: Shape) -> tuple[Cost, int]:
        """What comes before the layers costs, and the side of the map that it puts out."""

    @abstractmethod
    def block_cost(self, layer: Layer, choice: int, side: int, shape: Shape) -> Cost:
        """What a choice costs in a layer whose input is `side` x `side`."""

    @abstractmethod
    def head_cost(self, side: int, shape: Shape) -> Cost:
        """What comes after the layers costs; its input is `side` x `side`."""

    @abstractmethod
    def parts(self, shape: Shape) -> ChainParts:
        """Stem, blocks and head, and their initialisation."""

    def table(self, shape: Shape) -> CostTable:
        """The cost of every choice of every layer."""
        fixed, side = self.stem_cost(shape)
        genes = []
        for layer, alphabet in zip(self.layers(shape), self.choices, strict=True):
            genes.append({choice: self.block_cost(layer, choice, side, shape) for choice in alphabet})
            side = halved(side) if layer.stride == 2 else side
        return CostTable(fixed + self.head_cost(side, shape), tuple(genes))

    def supernet(self, shape: Shape) -> ChainSupernet:
        """All choices of all layers."""
        from vtk_cli.models.spaces.chain_network import ChainSupernet

        self.require_supernet(shape)
        return ChainSupernet(self, shape, self.layers(shape), self.parts(shape))

    def network(self, genes: Genes, shape: Shape, *, drop_path: float = 0.0, auxiliary: bool = False) -> ChainNetwork:
        """The network of one architecture."""
        from vtk_cli.models.spaces.chain_network import ChainNetwork

        self.require_network(genes, shape)
        self.refuse_extras(drop_path, auxiliary=auxiliary)
        return ChainNetwork(genes, self.layers(shape), self.parts(shape))
