"""A supernet: one network that holds the weights of every architecture of a space (single path, arXiv 1904.00420)."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Shape, Space

Choice = tuple[int, int]
"""A gene, and the value of it to which a part of the supernet belongs."""


class Supernet(nn.Module, ABC):
    """A network whose forward takes the path of one architecture.

    Args:
        space: whose architectures it holds.
        shape: of the form `supernet`.

    Raises:
        UserError: `shape` is not.
    """

    def __init__(self, space: Space, shape: Shape) -> None:
        super().__init__()
        space.require_supernet(shape)
        self.space, self.shape = space, shape

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Weights and buffers are copied; the space, of which there is one, is not."""
        memo[id(self.space)] = self.space
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    @property
    def choices(self) -> tuple[Genes, ...]:
        """For each gene, the values that it can take."""
        return self.space.choices

    @abstractmethod
    def forward(self, images: Tensor, genes: Sequence[int]) -> Tensor:
        """Run the path of an architecture and nothing else.

        Args:
            images: (B, C, H, W).
            genes: of the architecture; valid ones.

        Returns:
            (B, classes) logits.
        """

    @abstractmethod
    def choice_of(self, name: str) -> Choice | None:
        """To which choice the parameter or buffer `name` belongs; None for what all architectures share."""

    @abstractmethod
    def stand_alone_state(self, genes: Sequence[int]) -> dict[str, Tensor]:
        """What an architecture uses of the state, under the names of the network alone.

        `space.network(genes, self.stand_alone_shape)` loads it strictly and then computes what the path computes. The
        normalisations that the network has and the supernet has not (affine ones) become the identity.
        """

    @property
    def stand_alone_shape(self) -> Shape:
        """The shape of the networks that fit the weights of the paths."""
        return replace(self.shape, form=self.space.alone)

    def active_parameters(self, genes: Sequence[int]) -> dict[str, nn.Parameter]:
        """The parameters that an architecture uses, by name, in the order of the network's own."""
        return {name: value for name, value in self.named_parameters() if self._active(name, genes)}

    def active_normalisations(self, genes: Sequence[int]) -> dict[str, nn.BatchNorm2d]:
        """The batch normalisations that an architecture uses, by name."""
        return {
            name: module
            for name, module in self.named_modules()
            if isinstance(module, nn.BatchNorm2d) and self._active(f"{name}.running_mean", genes)
        }

    def vectors(
        self,
        genes: Sequence[int],
        state: Mapping[str, Tensor],
        *,
        official_quirks: bool = False,  # noqa: ARG002 - for the spaces whose released code has any
    ) -> Tensor:
        """The vector of an architecture's weights, whose angle between two states is its score (arXiv 2101.11834).

        In a chain of layers: all weights of stem, chosen blocks and classifier, in the order of the network's own.

        Args:
            genes: of the architecture.
            state: of this supernet, as `state_dict()` gives it: its initial or its trained weights.
            official_quirks: take the beta of DARTS' dilated convolutions from their gamma, as the released code does.

        Returns:
            (N,) on the device of `state`; empty where no path of the architecture carries anything, whose angle is 0.
        """
        return torch.cat([state[name].reshape(-1) for name in self.active_parameters(genes)])

    def _active(self, name: str, genes: Sequence[int]) -> bool:
        choice = self._choice_by_name.get(name)
        return choice is None or genes[choice[0]] == choice[1]

    @cached_property
    def _choice_by_name(self) -> dict[str, Choice | None]:
        return {name: self.choice_of(name) for name in self.state_dict()}


def with_affine(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the normalisations of `state` that have none a gamma of 1 and a beta of 0."""
    full = dict(state)
    for name, mean in state.items():
        if name.endswith(".running_mean"):
            module = name.removesuffix("running_mean")
            full.setdefault(f"{module}weight", torch.ones_like(mean))
            full.setdefault(f"{module}bias", torch.zeros_like(mean))
    return full
