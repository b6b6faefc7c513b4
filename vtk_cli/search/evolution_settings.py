"""How evolution searches. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from vtk_cli.errors import UserError


@dataclass(frozen=True)
class EvolutionSettings:
    """How to search.

    Args:
        population: architectures in a generation.
        generations: how many.
        parents: the best so many of all that were scored so far have children.
        mutations: children of one parent, each of whose genes is drawn anew with `probability`.
        crossovers: children of two parents, drawn with replacement, with each gene from either.
        probability: see `mutations`.
        mutated_genes: only the first so many mutate: 14 in the released code, where the reduction cell of DARTS never
            does; None: all.
        seed: of everything drawn.

    Raises:
        UserError: a value is out of range.
    """

    population: int = 50
    generations: int = 20
    parents: int = 10
    mutations: int = 25
    crossovers: int = 25
    probability: float = 0.1
    mutated_genes: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("population", 1), ("generations", 1), ("parents", 1), ("mutations", 0), ("crossovers", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}", f"--{name}")
        if self.mutations + self.crossovers > self.population:
            what = f"{self.mutations} mutations and {self.crossovers} crossovers are more than {self.population}"
            raise UserError(what, "--population", "give a larger population")
        if not 0 < self.probability <= 1:
            raise UserError(f"the probability of a mutation must be in (0, 1], not {self.probability}")
