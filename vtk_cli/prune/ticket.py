"""A ticket: which of a generator's frozen weights are kept (arXiv 2212.08311), and what else it is rebuilt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any, Literal

from torch import Tensor

from vtk_cli.prune.keeping import Scope, Structure

Source = Literal["seed", "checkpoint", "stored"]
MOST_WEIGHTS = 2**30
"""More than the layers of any ticket hold together."""
_SHOWN = 3


@dataclass(frozen=True)
class Origin:
    """Where the frozen weights come from.

    Args:
        source: `seed`: made anew from it, the signs of signed constants by counter-based random bits and so the same
            everywhere, other distributions by torch's generator, whose numbers may change with its version;
            `checkpoint`: a file that is needed to rebuild; `stored`: the ticket holds the kept weights.
        init: their distribution, for `seed` and, for information, for `stored` weights.
        seed: 0 to 2**64 - 1; None unless they come from a seed.
        scale: what the fan-in is multiplied by, which is the number of inputs that reach one output.
        sha256: of the checkpoint's weights (`weights.weights_sha256`); empty for other sources.
        torch: the version that drew them; empty where no generator of torch did.
    """

    source: Source
    init: str = ""
    seed: int | None = None
    scale: Fraction = Fraction(1)
    sha256: str = ""
    torch: str = ""


@dataclass(frozen=True)
class Layer:
    """One layer whose weights the ticket selects.

    Args:
        name: of the module, as in the generator.
        shape: of its weight.
        kept: how many weights are kept.
        frozen: kept whole, outside the pool that is pruned.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    frozen: bool = False

    @property
    def n(self) -> int:
        """How many weights it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class Ticket:
    """What a ticket file holds.

    Args:
        generator: the name and the arguments of `create_generator`.
        keep: the fraction that was to be kept, in (0, 1], exactly; `1/10` in the header.
        scope: `layer`, that fraction of each layer, or `global`, of all together.
        structure: `none`, or `2:4`, two of every four consecutive weights.
        algorithm: what found the masks.
        origin: where the weights come from.
        layers: in layer order; `masks` has the same order.
        masks: by layer, bool, of the weight's shape.
        rest: all other floating-point tensors of the generator's state dict, float32, by name.
        weights_sha256: of all effective weights, see `weights.effective_sha256`.
        kept_weights: (kept,) float32 in layer order, for `stored` weights; None otherwise.
        metrics: what was measured on it; JSON values.
        made_with: versions, by package.
    """

    generator: Mapping[str, Any]
    keep: Fraction
    scope: Scope
    structure: Structure
    algorithm: str
    origin: Origin
    layers: tuple[Layer, ...]
    masks: Mapping[str, Tensor]
    rest: Mapping[str, Tensor]
    weights_sha256: str
    kept_weights: Tensor | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    made_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def pool(self) -> tuple[Layer, ...]:
        """The layers that were pruned: all but the frozen ones."""
        return tuple(layer for layer in self.layers if not layer.frozen)


def some(names: Sequence[str]) -> str:
    """The first few of the names, for an error."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
