"""Networks of layers in a row: the supernet with all choices of each layer (arXiv 1904.00420), and one path alone."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from vtk_cli.models.spaces.chain import Layer
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.models.spaces.stand_alone import FeatureMap, StandAlone
from vtk_cli.models.spaces.supernet import Choice, Supernet, with_affine

_BLOCK = re.compile(r"layers\.(\d+)\.(-?\d+)\.")


class ChainParts(ABC):
    """What the networks of a chain space are put together from."""

    stem_stride: int
    """Pixels of the input that a cell of the stem's output spans each way."""

    @abstractmethod
    def stem(self) -> nn.Module:
        """Images to the first layer's input."""

    @abstractmethod
    def block(self, layer: Layer, choice: int) -> nn.Module:
        """A choice of a layer."""

    @abstractmethod
    def head(self) -> nn.Module:
        """The last layer's output (B, C, H, W) to logits (B, classes)."""

    @abstractmethod
    def initialise(self, network: nn.Module) -> None:
        """Give a network made of these parts its first weights."""


class ChainSupernet(Supernet):
    """Stem, layers that each hold all their choices, head.

    Args:
        space: whose architectures it holds.
        shape: of the form `supernet`.
        layers: in order.
        parts: what they are made of.
    """

    def __init__(self, space: Space, shape: Shape, layers: Sequence[Layer], parts: ChainParts) -> None:
        super().__init__(space, shape)
        self.stem = parts.stem()
        self.layers = nn.ModuleList(
            nn.ModuleDict({str(choice): parts.block(layer, choice) for choice in alphabet})
            for layer, alphabet in zip(layers, space.choices, strict=True)
        )
        self.head = parts.head()
        parts.initialise(self)

    def forward(self, images: Tensor, genes: Sequence[int]) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) through one block of each layer."""
        x = self.stem(images)
        for blocks, choice in zip(self.layers, genes, strict=True):
            assert isinstance(blocks, nn.ModuleDict)  # noqa: S101 - as built above
            x = blocks[str(choice)](x)
        logits: Tensor = self.head(x)
        return logits

    def choice_of(self, name: str) -> Choice | None:
        """The layer and the choice."""
        match = _BLOCK.match(name)
        return (int(match[1]), int(match[2])) if match else None

    def stand_alone_state(self, genes: Sequence[int]) -> dict[str, Tensor]:
        """See `Supernet`; the network computes what the path computes."""
        state = self.state_dict()
        return with_affine(
            {_BLOCK.sub(r"layers.\1.", name): state[name] for name in state if self._active(name, genes)}
        )


class ChainNetwork(StandAlone):
    """Stem, one block for each layer, head.

    Args:
        genes: valid ones.
        layers: in order.
        parts: what they are made of.
    """

    def __init__(self, genes: Sequence[int], layers: Sequence[Layer], parts: ChainParts) -> None:
        ends = [at for at in range(len(layers)) if at + 1 == len(layers) or layers[at + 1].stride == 2]
        strides = [parts.stem_stride * 2 ** sum(layer.stride == 2 for layer in layers[: at + 1]) for at in ends]
        super().__init__(
            tuple(FeatureMap(layers[at].outputs, stride) for at, stride in zip(ends, strides, strict=True))
        )
        self._ends = frozenset(ends)
        self.stem = parts.stem()
        self.layers = nn.ModuleList(parts.block(layer, choice) for layer, choice in zip(layers, genes, strict=True))
        self.head = parts.head()
        parts.initialise(self)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last map of each resolution that the layers have."""
        x, maps = self.stem(images), []
        for number, block in enumerate(self.layers):
            x = block(x)
            if number in self._ends:
                maps.append(x)
        return maps

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from the last layer's output."""
        logits: Tensor = self.head(features)
        return logits
