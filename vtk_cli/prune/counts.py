"""How many weights are kept: by layer, of the prunable ones, and of all; and what to be warned of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from vtk_cli.prune.masking import masked_layers, prunable

THIN = 0.005
"""A layer of which less is kept is about to die."""
FEW = 10_000
"""Kept weights below which strong tickets are seldom good: they are found in wide networks (arXiv 1911.13299)."""


@dataclass(frozen=True)
class LayerCount:
    """One prunable layer.

    Args:
        name: in the network.
        shape: of its weight.
        n: weights.
        kept: of them.
    """

    name: str
    shape: tuple[int, ...]
    n: int
    kept: int


@dataclass(frozen=True)
class Counts:
    """All prunable layers, in forward order; one that is frozen and dense counts as kept in full.

    Args:
        layers: one by one.
        other: parameters outside of them: biases, weights of batch normalisation.
    """

    layers: tuple[LayerCount, ...]
    other: int

    @property
    def kept(self) -> int:
        """Kept weights of the prunable layers."""
        return sum(layer.kept for layer in self.layers)

    @property
    def n(self) -> int:
        """Weights of the prunable layers."""
        return sum(layer.n for layer in self.layers)

    @property
    def kept_fraction(self) -> float:
        """Of the weights of prunable layers."""
        return self.kept / self.n

    @property
    def kept_fraction_of_all(self) -> float:
        """Of all parameters, those outside prunable layers counted as kept."""
        return (self.kept + self.other) / (self.n + self.other)

    def warnings(self) -> list[str]:
        """What a person should know of these counts, a line each."""
        thin = [f"{layer.name} ({layer.kept} of {layer.n})" for layer in self.layers if layer.kept < THIN * layer.n]
        said = [f"less than {THIN:.1%} is kept of {', '.join(thin)}: the generator may not recover"] if thin else []
        if self.kept < FEW and self.kept < self.n:
            said.append(f"only {self.kept} weights are kept; strong tickets need more: widen the generator (--ngf)")
        return said


def counts(network: nn.Module) -> Counts:
    """Count a network's weights and the kept ones, masked or plain; scores are no parameters of the generator."""
    masks = {name: layer.mask for name, layer in masked_layers(network).items()}
    rows = []
    for name, layer in prunable(network).items():
        weight = cast("Tensor", layer.weight)
        kept = int(masks[name].sum()) if name in masks else weight.numel()
        rows.append(LayerCount(name, tuple(weight.shape), weight.numel(), kept))
    scores = sum(layer.scores.numel() for layer in masked_layers(network).values() if layer.scores is not None)
    total = sum(parameter.numel() for parameter in network.parameters())
    return Counts(tuple(rows), total - scores - sum(row.n for row in rows))


def flips(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> int:
    """How many weights changed sides between two sets of masks."""
    return sum(int((before[name] != mask).sum()) for name, mask in after.items())
