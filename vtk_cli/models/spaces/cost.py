"""What a network costs: multiply-accumulates and parameters, from a table with an entry for each choice of each gene.

One image; a convolution is k k (Cin / groups) Cout Ho Wo multiply-accumulates and a linear layer in x out; batch
normalisation, pooling, activations and additions are free. Parameters leave out an auxiliary head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vtk_cli.errors import UserError


@dataclass(frozen=True)
class Cost:
    """What a network or a part of it costs.

    Args:
        macs: multiply-accumulates of one image's forward.
        params: parameters.
    """

    macs: int = 0
    params: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.params + other.params)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of `costs`."""
    return sum(costs, Cost())


def halved(side: int) -> int:
    """The side of a map after a stride of 2 with the padding that all spaces use: rounded up."""
    return (side + 1) // 2


def convolution(inputs: int, outputs: int, kernel: int, side: int, *, groups: int = 1) -> Cost:
    """A square convolution without bias whose output is `side` x `side`."""
    weights = kernel * kernel * (inputs // groups) * outputs
    return Cost(weights * side * side, weights)


def depthwise(channels: int, kernel: int, side: int) -> Cost:
    """A convolution of each channel alone, without bias, whose output is `side` x `side`."""
    return convolution(channels, channels, kernel, side, groups=channels)


def normalisation(channels: int, *, affine: bool = True) -> Cost:
    """A batch normalisation: two parameters a channel if it is affine."""
    return Cost(0, 2 * channels if affine else 0)


def linear(inputs: int, outputs: int, *, bias: bool = True) -> Cost:
    """A linear layer; its bias costs parameters and no multiply-accumulates."""
    return Cost(inputs * outputs, inputs * outputs + (outputs if bias else 0))


@dataclass(frozen=True)
class CostTable:
    """The cost of every architecture of a space, for networks of one shape.

    Args:
        fixed: what all architectures share: stem, preprocessing, classifier.
        genes: for each gene, the cost of each of its values.
    """

    fixed: Cost
    genes: tuple[Mapping[int, Cost], ...]

    def cost(self, genes: Sequence[int]) -> Cost:
        """What the architecture with these (valid) genes costs."""
        return self.fixed + total(self.part(0, genes))

    def part(self, start: int, genes: Sequence[int]) -> Iterable[Cost]:
        """The costs of a stretch of genes that begins at gene `start`."""
        return (choices[value] for choices, value in zip(self.genes[start:], genes, strict=False))


Bin = tuple[float, float]
"""Multiply-accumulates from the first number on and below the second."""


@dataclass(frozen=True)
class CostRange:
    """The least and the greatest that architectures of a space cost, each of the two figures by itself.

    Args:
        macs: least and greatest number of multiply-accumulates.
        params: least and greatest number of parameters.
    """

    macs: tuple[int, int]
    params: tuple[int, int]


@dataclass(frozen=True)
class Limits:
    """What an architecture may cost; None is no limit.

    Args:
        max_macs: of multiply-accumulates (the field's "FLOPs"), at most.
        min_macs: of multiply-accumulates, at least.
        max_params: of parameters, at most.
    """

    max_macs: float | None = None
    min_macs: float | None = None
    max_params: float | None = None

    def admit(self, cost: Cost) -> bool:
        """Whether an architecture of this cost is allowed."""
        return (
            (self.max_macs is None or cost.macs <= self.max_macs)
            and (self.min_macs is None or cost.macs >= self.min_macs)
            and (self.max_params is None or cost.params <= self.max_params)
        )

    def excess(self, cost: Cost) -> float:
        """How far outside of the limits an architecture of this cost is, in parts of each limit; 0 within."""
        over = ((cost.macs, self.max_macs), (cost.params, self.max_params))
        above = sum(max(0.0, value / limit - 1) for value, limit in over if limit is not None)
        return above + (max(0.0, 1 - cost.macs / self.min_macs) if self.min_macs else 0.0)

    def check(self, attainable: CostRange) -> None:
        """Refuse limits that no architecture meets.

        Args:
            attainable: `Space.cost_range` for the shape that is searched for.

        Raises:
            UserError: a limit lies outside of what is attainable, or the limits exclude one another.
        """
        least, most = attainable.macs
        if self.max_macs is not None and self.max_macs < least:
            raise _unreachable(self.max_macs, "below the space minimum", least, "--max-flops", attainable.macs)
        if self.min_macs is not None and self.min_macs > most:
            raise _unreachable(self.min_macs, "above the space maximum", most, "--min-flops", attainable.macs)
        if self.max_params is not None and self.max_params < attainable.params[0]:
            fewest = attainable.params[0]
            raise _unreachable(self.max_params, "below the space minimum", fewest, "--max-params", attainable.params)
        if self.max_macs is not None and self.min_macs is not None and self.min_macs > self.max_macs:
            what = f"{in_millions(self.min_macs)} is above --max-flops {in_millions(self.max_macs)}"
            raise UserError(what, "--min-flops", "give a lower one")


def in_millions(count: float) -> str:
    """`182.5 M`, for a number of multiply-accumulates or parameters; below a million with three digits."""
    millions = count / 1e6
    return f"{millions:.1f}".removesuffix(".0") + " M" if millions >= 1 else f"{millions:.3g} M"


def _unreachable(limit: float, relation: str, bound: int, flag: str, attainable: tuple[int, int]) -> UserError:
    what = f"limit {in_millions(limit)} is {relation} {in_millions(bound)}"
    return UserError(what, flag, f"attainable are {in_millions(attainable[0])} to {in_millions(attainable[1])}")
