"""What every search space offers: its genes, the cost of an architecture, and the networks."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from vtk_cli.errors import UserError, nearest
from vtk_cli.models.spaces.cost import Cost, CostRange, CostTable, total
from vtk_cli.models.spaces.genes import Genes, Position, span

_BETWEEN = re.compile(r"[\s,|]+")
_GENE = re.compile(r"-?\d{1,9}")

if TYPE_CHECKING:
    from numpy.random import Generator

    from vtk_cli.models.spaces.stand_alone import StandAlone
    from vtk_cli.models.spaces.supernet import Supernet

SUPERNET = "supernet"
"""The form of networks whose weights are shared."""
STAND_ALONE = "stand-alone"
"""The form of networks that are trained by themselves, where a space has only one."""
LARGEST = MappingProxyType({"classes": 1_000_000, "resolution": 16_384, "width": 1024, "cells": 1000})
"""What is more is a slip, or a file that means no good: nothing could hold such a network."""


@dataclass(frozen=True)
class Form:
    """A way in which a space's architectures become networks, and how large unless the user says otherwise.

    Args:
        resolution: side of the input, in pixels.
        width: channels that the other widths are multiples of; 0 where the space fixes them.
        cells: number of cells, of each stage in NAS-Bench-201; 0 where the space fixes it.
    """

    resolution: int
    width: int = 0
    cells: int = 0


@dataclass(frozen=True)
class Shape:
    """Everything but the genes that decides a network of a space. Made by `Space.shape`.

    Args:
        space: the space's name.
        form: one of its forms.
        classes: of the images.
        resolution: side of the input, in pixels.
        width: channels that the other widths are multiples of; 0 where the space fixes them.
        cells: number of cells, of each stage in NAS-Bench-201; 0 where the space fixes it.
    """

    space: str
    form: str
    classes: int
    resolution: int
    width: int
    cells: int


@dataclass(frozen=True)
class Released:
    """An architecture that authors published.

    Args:
        genes: of it.
        form: of the network they trained.
        width: of that network; None where the space fixes it.
        source: where it is from.
        top1: accuracy on ImageNet that they report, in percent.
    """

    genes: Genes
    form: str
    width: int | None
    source: str
    top1: float


class Space(ABC):
    """A search space.

    Args:
        name: what users type.
        summary: what it is, in a line.
        positions: of its genes, in order.
        forms: the forms of its networks by name; `supernet` is one, the first of the others the default.
        input_channels: of the images, 3 or 1.
        least_cells: the fewest cells that a network can have.
        released: published architectures by name.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        positions: tuple[Position, ...],
        forms: Mapping[str, Form],
        *,
        input_channels: int = 3,
        least_cells: int = 1,
        released: Mapping[str, Released] = MappingProxyType({}),
    ) -> None:
        self.name, self.summary, self.positions = name, summary, positions
        self.forms, self.input_channels, self.least_cells = MappingProxyType(dict(forms)), input_channels, least_cells
        self.released = released

    @property
    def size(self) -> int:
        """The number of architectures."""
        return math.prod(len(position.options) for position in self.positions)

    @property
    def length(self) -> int:
        """The number of genes."""
        return self.positions[-1].stop

    @cached_property
    def choices(self) -> tuple[Genes, ...]:
        """For each gene, the values that it can take, ascending."""
        return tuple(alphabet for position in self.positions for alphabet in position.alphabets)

    @property
    def independent(self) -> bool:
        """Whether every gene may be chosen without regard to the others, as strict fairness (FairNAS) needs."""
        return len(self.positions) == self.length

    @property
    def alone(self) -> str:
        """The form of the stand-alone network with the layout of the supernet."""
        return next(form for form in self.forms if form != SUPERNET)

    def validate(self, genes: Sequence[int]) -> None:
        """Refuse what is no architecture of this space.

        Raises:
            UserError: the number of genes is wrong, or a gene has a value that it cannot take there.
        """
        known = {value for alphabet in self.choices for value in alphabet}
        needs = f"{self.name} needs {self.length} genes in {span(sorted(known))}"
        if len(genes) != self.length:
            raise UserError(needs, fix=f"there are {len(genes)}")
        for number, gene in enumerate(genes):
            if gene not in known:
                raise UserError(needs, fix=f"gene {number} (from 0) is {gene}")
        for position in self.positions:
            stretch = position.of(genes)
            if not position.holds(stretch):
                raise UserError(f"no architecture of {self.name}: {position.complaint(stretch)}")

    def sample(self, rng: Generator) -> Genes:
        """An architecture, each as likely as every other."""
        return tuple(gene for position in self.positions for gene in position.draw(rng))

    def mutate(self, genes: Genes, rng: Generator, probability: float) -> Genes:
        """Draw each gene anew with `probability`; what that breaks is repaired. May return `genes` itself."""
        stretches = (position.mutated(position.of(genes), rng, probability) for position in self.positions)
        return tuple(gene for stretch in stretches for gene in stretch)

    def crossover(self, first: Genes, second: Genes, rng: Generator) -> Genes:
        """Take each gene from either parent; what that breaks is repaired."""
        stretches = (position.crossed(position.of(first), position.of(second), rng) for position in self.positions)
        return tuple(gene for stretch in stretches for gene in stretch)

    def parse(self, text: str) -> Genes:
        """The architecture that a user wrote: its genes, or the name of a published one.

        Raises:
            UserError: it is none of this space.
        """
        known = self.released.get(text.strip().lower().replace("_", "-"))
        genes = known.genes if known else self.read(text)
        self.validate(genes)
        return genes

    def read(self, text: str) -> Genes:
        """The genes that `text` spells out, not yet validated: integers between blanks, commas or bars.

        Raises:
            UserError: it does not spell out genes.
        """
        numbers = _BETWEEN.split(text.strip().removeprefix("[").removeprefix("(").removesuffix("]").removesuffix(")"))
        found = [number for number in numbers if number]
        if not found or not all(map(_GENE.fullmatch, found)):
            fix = nearest(text, self.released) or f"write its {self.length} genes as integers"
            raise UserError(f"{text!r} is no architecture of {self.name}", fix=fix)
        return tuple(map(int, found))

    def format(self, genes: Sequence[int]) -> str:
        """The canonical text of an architecture; `parse` reads it back."""
        return " ".join(str(gene) for gene in genes)

    def shape(
        self,
        form: str,
        classes: int,
        *,
        resolution: int | None = None,
        width: int | None = None,
        cells: int | None = None,
    ) -> Shape:
        """The shape of a network of this space.

        Args:
            form: one of `forms`.
            classes: of the images.
            resolution: side of the input; the form's own if None, and so `width` and `cells`.
            width: channels that the other widths are multiples of.
            cells: number of cells.

        Raises:
            UserError: there is no such form, or it cannot have that size.
        """
        if form not in self.forms:
            known = nearest(form, self.forms) or f"there are {', '.join(self.forms)}"
            raise UserError(f"{self.name} has no networks of the form {form!r}", fix=known)
        own = self.forms[form]
        for name, given, fixed in (("width", width, not own.width), ("cells", cells, not own.cells)):
            if given is not None and fixed:
                raise UserError(f"networks of {self.name} have their {name} fixed", f"{name} {given}", "leave it out")
        shape = Shape(
            self.name,
            form,
            classes,
            own.resolution if resolution is None else resolution,
            own.width if width is None else width,
            own.cells if cells is None else cells,
        )
        self._check(shape)
        return shape

    @abstractmethod
    def table(self, shape: Shape) -> CostTable:
        """The cost of every choice of every gene. Where many architectures are asked about, ask this once."""

    def cost(self, genes: Genes, shape: Shape) -> Cost:
        """What the network of an architecture costs; of the form `supernet`, its path with the parameters it uses."""
        return self.table(shape).cost(genes)

    def official_macs(self, genes: Genes, shape: Shape) -> int:
        """The multiply-accumulates as the authors of the space count them, for comparison with their figures."""
        return self.cost(genes, shape).macs

    def cost_range(self, shape: Shape) -> CostRange:
        """What the cheapest and the dearest architectures cost."""
        table = self.table(shape)
        least, most = [0, 0], [0, 0]
        for position in self.positions:
            costs = [total(table.part(position.start, option)) for option in position.options]
            for at, figures in enumerate(([cost.macs for cost in costs], [cost.params for cost in costs])):
                least[at] += min(figures)
                most[at] += max(figures)
        fixed = (table.fixed.macs, table.fixed.params)
        macs, params = ((fixed[at] + least[at], fixed[at] + most[at]) for at in (0, 1))
        return CostRange(macs, params)

    @abstractmethod
    def supernet(self, shape: Shape) -> Supernet:
        """The network that holds the weights of all architectures, initialised; draws from torch's generator.

        Raises:
            UserError: `shape` is not of the form `supernet`.
        """

    @abstractmethod
    def network(self, genes: Genes, shape: Shape, *, drop_path: float = 0.0, auxiliary: bool = False) -> StandAlone:
        """The network of one architecture, initialised; draws from torch's generator.

        Args:
            genes: of the architecture.
            shape: of a form other than `supernet`.
            drop_path: probability with which an edge's output is dropped in training, for each image.
            auxiliary: whether a second classifier sits in the middle of the network in training.

        Raises:
            UserError: the genes are not of this space, or the space's networks have no edges to drop or no place for
                a second classifier.
        """

    def _check(self, shape: Shape) -> None:
        own = self.forms[shape.form]
        for name, value, minimum in (
            ("classes", shape.classes, 1),
            ("resolution", shape.resolution, 1),
            ("width", shape.width, 1 if own.width else 0),
            ("cells", shape.cells, self.least_cells if own.cells else 0),
        ):
            if value < minimum:
                raise UserError(f"networks of {self.name} need {name} of at least {minimum}", f"{name} {value}")
            if value > LARGEST[name]:
                raise UserError(f"networks of {self.name} have {name} of at most {LARGEST[name]}", f"{name} {value}")

    def require_supernet(self, shape: Shape) -> None:
        """Refuse a shape that is not of this space's supernet.

        Raises:
            UserError: it is not.
        """
        self._require(shape)
        if shape.form != SUPERNET:
            raise UserError(f"a supernet cannot have the form {shape.form!r}", fix=f"give the form {SUPERNET}")

    def require_network(self, genes: Sequence[int], shape: Shape) -> None:
        """Refuse genes that are not of this space and a shape that is not of its stand-alone networks.

        Raises:
            UserError: they are not.
        """
        self._require(shape)
        if shape.form == SUPERNET:
            forms = ", ".join(form for form in self.forms if form != SUPERNET)
            raise UserError(f"a network alone cannot have the form {SUPERNET}", fix=f"give one of {forms}")
        self.validate(genes)

    def _require(self, shape: Shape) -> None:
        if shape.space != self.name:
            raise UserError(f"the shape is of the space {shape.space}, not of {self.name}")

    def refuse_extras(self, drop_path: float, *, auxiliary: bool) -> None:
        """For spaces whose networks are trained without them: refuse drop-path and a second classifier.

        Raises:
            UserError: one of them is asked for.
        """
        if drop_path or auxiliary:
            what = "second classifier" if auxiliary else "drop-path"
            raise UserError(f"networks of {self.name} have no {what}", fix="leave it out")
