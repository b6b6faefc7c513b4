"""Networks of masked layers: which layers are masked, how their masks follow the scores, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.prune.keeping import Scope, Structure
from vtk_cli.prune.layers import (
    Masked,
    MaskedConv2d,
    MaskedConvTranspose2d,
    MaskedLinear,
    masked_layer,
    plain_layer,
    straight_through,
)
from vtk_cli.prune.selection import require_two_of_four, select, top_k_mask

__all__ = [
    "PRUNABLE",
    "Masked",
    "MaskedConv2d",
    "MaskedConvTranspose2d",
    "MaskedLinear",
    "MaskedNetwork",
    "Selection",
    "folded",
    "masked",
    "masked_layers",
    "masks_of",
    "prunable",
    "set_masks",
    "straight_through",
    "top_k_mask",
]

PRUNABLE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Selection:
    """How the kept weights are chosen.

    Args:
        keep: the fraction of weights kept.
        scope: `layer` or `global`.
        structure: `none` or `2:4`.
    """

    keep: Fraction
    scope: Scope = "layer"
    structure: Structure = "none"


class MaskedNetwork(nn.Module):
    """A network some of whose layers are masked; the masks follow the scores.

    In training they are chosen anew at the start of every forward pass, so that they never lag behind the scores; in
    eval mode only after the scores changed.

    Args:
        network: its masked layers in the order of its forward pass; the rest is as it was.
        selection: how masks are made of scores.
    """

    def __init__(self, network: nn.Module, selection: Selection) -> None:
        super().__init__()
        self.network = network
        self.selection = selection
        self._versions: list[tuple[int, int]] | None = None

    @property
    def layers(self) -> dict[str, Masked]:
        """The masked layers by their names in `network`, in forward order."""
        return masked_layers(self.network)

    def refresh(self) -> None:
        """Choose the masks by the scores as they are now; fixed masks stay."""
        layers = self.layers
        if not any(layer.scores is not None for layer in layers.values()):
            return
        for name, mask in self.chosen().items():
            layers[name].mask.copy_(mask)

    @torch.no_grad()
    def chosen(self) -> dict[str, Tensor]:
        """The masks that the scores ask for now."""
        return masks_of(self.network, self.selection.keep, self.selection.scope, self.selection.structure)

    def forward(self, noise: Tensor) -> Tensor:
        """What the network makes of `noise` with the weights that are kept."""
        versions = [(id(one.scores), one.scores._version) for one in self.layers.values() if one.scores is not None]
        if self.training or versions != self._versions:
            self.refresh()
            # The version of a parameter does not tell of every optimiser's step: what was seen in training is old.
            self._versions = None if self.training else versions
        output: Tensor = self.network(noise)
        return output


def prunable(network: nn.Module) -> dict[str, nn.Module]:
    """The convolutions and linear layers of a network by name, masked or not, each once, as they were registered.

    The generators here register their layers in the order of their forward pass.
    """
    return {name: module for name, module in network.named_modules() if isinstance(module, PRUNABLE)}


def masked_layers(network: nn.Module) -> dict[str, Masked]:
    """The masked layers of a network by name, in forward order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Masked)}


def masked(
    network: nn.Module, selection: Selection, *, freeze_first: bool = False, freeze_last: bool = False
) -> MaskedNetwork:
    """Turn a network into its masked twin, in place: every weight frozen, nothing scored, everything kept.

    Biases and batch normalisation stay as they are, frozen.

    Args:
        network: plain.
        selection: how masks will be chosen.
        freeze_first: leave the first prunable layer dense and out of the pool.
        freeze_last: the same for the last.

    Raises:
        UserError: no layer is left to prune, or `2:4` does not divide one.
    """
    network.requires_grad_(requires_grad=False)
    layers = prunable(network)
    names = list(layers)[1 if freeze_first else 0 : -1 if freeze_last else None]
    if not names:
        raise UserError("no layer is left to prune", "--freeze-first, --freeze-last", "leave one of them out")
    if selection.structure == "2:4":
        require_two_of_four({name: layers[name] for name in names}, selection.keep)
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, masked_layer(layers[name]))
    return MaskedNetwork(network, selection)


def masks_of(network: nn.Module, keep: Fraction, scope: Scope, structure: Structure = "none") -> dict[str, Tensor]:
    """The masks that the scores of a network's masked layers ask for.

    Returns:
        bool masks by layer name, in forward order.

    Raises:
        ValueError: a layer has no scores.
        UserError: see `select`.
    """
    layers = masked_layers(network)
    return select(layers, {name: layer.amounts for name, layer in layers.items()}, keep, scope, structure)


def set_masks(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Fix the masks of a network's masked layers: their scores are dropped.

    Raises:
        ValueError: the masks are of other layers or shapes.
    """
    layers = masked_layers(network)
    shapes = {name: layer.mask.shape for name, layer in layers.items()}
    given = {name: mask.shape for name, mask in masks.items()}
    if shapes != given:
        raise ValueError(f"masks of other layers: {given} for {shapes}")
    for name, layer in layers.items():
        layer.scores = layer.alive = None
        layer.mask.copy_(masks[name])


@torch.no_grad()
def folded(network: nn.Module) -> nn.Module:
    """Make masked layers plain ones with the kept weights, in place; the network is also returned."""
    for name, layer in masked_layers(network).items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, plain_layer(layer))
    return network
