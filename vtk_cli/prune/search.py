"""The one face of all ways to a small generator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from vtk_cli.prune.masking import MaskedNetwork


class Search(nn.Module):
    """A generator on its way to a small one; this class leaves it as it is.

    Args:
        generator: maps noise (B, nz) to images.
        trained: the parameters that the optimiser gets; all others are frozen.

    Attributes:
        needs_all_weights: masks are chosen by comparing the scores, or weights, of all layers; where processes hold
            parts of them, forward passes, `begin_step` and `penalty` then have them whole.
    """

    needs_all_weights = False

    def __init__(self, generator: nn.Module, trained: Iterable[nn.Parameter] = ()) -> None:
        super().__init__()
        self.generator = generator.requires_grad_(requires_grad=False)
        for parameter in trained:
            parameter.requires_grad_()

    @property
    def network(self) -> nn.Module:
        """The bare generator, whose layers may be masked."""
        return self.generator

    def trained(self) -> list[nn.Parameter]:
        """What is trained; empty where nothing is."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def begin_step(self, step: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """What happens before the forward pass of update number `step` (from 0).

        Args:
            step: the update.
            optimizer: of what is trained; its memory is cleared where weights are set back.
        """

    def penalty(self) -> Tensor | None:
        """What is added to the loss."""
        return None

    def finish(self) -> None:
        """Settle the masks after the last step; exactly the promised number of weights is then kept."""

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, nz) -> images (B, C, R, R) in [-1, 1]."""
        images: Tensor = self.generator(noise)
        return images


class MaskedSearch(Search):
    """A search on a masked generator.

    Args:
        twin: the generator.
        trained: see `Search`.
    """

    def __init__(self, twin: MaskedNetwork, trained: Iterable[nn.Parameter] = ()) -> None:
        super().__init__(twin, trained)

    @property
    def twin(self) -> MaskedNetwork:
        """The masked generator."""
        return cast("MaskedNetwork", self.generator)

    @property
    def network(self) -> nn.Module:
        """The bare generator with its masked layers."""
        return self.twin.network

    @property
    def scores(self) -> list[nn.Parameter]:
        """The scores of its layers, in forward order."""
        return scores_of(self.twin)


def scores_of(twin: MaskedNetwork) -> list[nn.Parameter]:
    """The scores of a network's masked layers, in forward order."""
    return [layer.scores for layer in twin.layers.values() if layer.scores is not None]


def weights_of(twin: MaskedNetwork) -> list[nn.Parameter]:
    """The weights of a network's masked layers, in forward order."""
    return [cast("nn.Parameter", layer.weight) for layer in twin.layers.values()]
