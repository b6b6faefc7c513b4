"""Genes: an architecture as a tuple of integers, cut into stretches that do not constrain one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import Generator

Genes = tuple[int, ...]


@dataclass(frozen=True)
class Position:
    """A stretch of genes; every valid setting of it goes with every valid setting of the others.

    Args:
        start: its first gene.
        alphabets: for each of its genes, the values that the gene can take, ascending.
        options: its valid settings.
        place: what it is, in words: `layer 4`, `node 3 of the normal cell`.
    """

    start: int
    alphabets: tuple[Genes, ...]
    options: tuple[Genes, ...]
    place: str

    @property
    def stop(self) -> int:
        """The gene after its last."""
        return self.start + len(self.alphabets)

    def of(self, genes: Sequence[int]) -> Genes:
        """This stretch of an architecture's genes."""
        return tuple(genes[self.start : self.stop])

    def holds(self, stretch: Genes) -> bool:
        """Whether a stretch is a valid setting."""
        return stretch in self._known

    def draw(self, rng: Generator) -> Genes:
        """A valid setting, each as likely as every other."""
        return self.options[int(rng.integers(len(self.options)))]

    def mutated(self, stretch: Genes, rng: Generator, probability: float) -> Genes:
        """Draw each gene anew from its alphabet with `probability`, then repair what that broke."""
        changed = tuple(
            alphabet[int(rng.integers(len(alphabet)))] if rng.random() < probability else gene
            for gene, alphabet in zip(stretch, self.alphabets, strict=True)
        )
        return self.repaired(changed, rng)

    def crossed(self, first: Genes, second: Genes, rng: Generator) -> Genes:
        """Take each gene from either parent, then repair what that broke."""
        child = tuple(b if rng.random() < 0.5 else a for a, b in zip(first, second, strict=True))
        return self.repaired(child, rng)

    def repaired(self, stretch: Genes, rng: Generator) -> Genes:  # noqa: ARG002 - for stretches of several genes
        """The nearest valid setting; of a gene that stands alone every setting is."""
        return stretch

    def complaint(self, stretch: Genes) -> str:
        """What is wrong with a setting that is not valid, whose genes are some layer's."""
        return f"{self.place} takes {_listed(self.alphabets[0])}, not {stretch[0]}"

    @cached_property
    def _known(self) -> frozenset[Genes]:
        return frozenset(self.options)


def single_gene(number: int, alphabet: Genes) -> Position:
    """The position of a gene that depends on no other: the choice of a layer or of an edge."""
    return Position(number, (alphabet,), tuple((value,) for value in alphabet), f"gene {number}")


def span(values: Sequence[int]) -> str:
    """`0..7` for whole numbers without a gap."""
    return f"{min(values)}..{max(values)}"


def _listed(alphabet: Genes) -> str:
    return ", ".join(str(value) for value in alphabet)
