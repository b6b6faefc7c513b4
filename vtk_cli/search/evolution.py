"""Evolution over the architectures of a space (arXiv 2305.08611, 1904.00420): it asks for scores and is told them.

It computes nothing itself, so that the work may be done anywhere and in any order, and its whole state is plain
numbers: what goes on from a state does what would have been done without a break.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.cost import Cost, CostTable, Limits, total
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Space
from vtk_cli.search.evolution_settings import EvolutionSettings
from vtk_cli.search.scores.combination import Combination
from vtk_cli.search.scores.values import Metrics

TRIES = 1000
"""How often in a row an operator may fail to find an architecture that is new and admitted, before it gives up."""

_PLAIN_DRAWS = 20
_WALK = 30
"""Steps of the way to the limits, for each position."""

Draw = Callable[[np.random.Generator], Genes]
"""Draws an architecture at random."""

Admits = Callable[[Genes], bool]
"""Whether an architecture is within the limits."""


def within(limits: Limits, table: CostTable) -> Admits:
    """Admits what costs no more, and no less, than `limits` say, for networks of the shape that `table` is of."""
    return lambda genes: limits.admit(table.cost(genes))


def draw_within(space: Space, limits: Limits, table: CostTable) -> Draw:
    """Draws architectures within `limits`, also where these are so narrow that hardly any random one is.

    Of a few uniform draws the first within the limits is taken. Where none is, the last one is led there: positions are
    drawn anew, one at a time, as long as that brings it no further away. It may still be outside in the end.
    """

    def draw(rng: np.random.Generator) -> Genes:
        for _ in range(_PLAIN_DRAWS):
            genes = space.sample(rng)
            outside = limits.excess(table.cost(genes))
            if not outside:
                return genes
        cost = table.cost(genes)
        for _ in range(_WALK * len(space.positions)):
            position = space.positions[int(rng.integers(len(space.positions)))]
            stretch = position.draw(rng)
            before, after = (total(table.part(position.start, one)) for one in (position.of(genes), stretch))
            tried = Cost(cost.macs + after.macs - before.macs, cost.params + after.params - before.params)
            excess = limits.excess(tried)
            if excess <= outside:
                genes, cost, outside = genes[: position.start] + stretch + genes[position.stop :], tried, excess
            if not outside:
                break
        return genes

    return draw


@dataclass(frozen=True)
class Generation:
    """A generation that was scored.

    Args:
        number: from 0.
        asked: how many architectures it had.
        evaluated: how many were asked for up to here.
        best: the genes of the best of all so far; None if none has a finite score.
        score: its score among all so far.
    """

    number: int
    asked: int
    evaluated: int
    best: Genes | None
    score: float | None


@dataclass(frozen=True)
class Ranked:
    """An architecture that was scored.

    Args:
        genes: its genes.
        score: among all that were scored so far.
        metrics: what it was computed from.
    """

    genes: Genes
    score: float
    metrics: Metrics


class Evolution:
    """A search that is under way.

    Args:
        space: whose architectures.
        settings: how.
        score: of their metrics.
        admits: which architectures may be asked for; `within` makes one of limits.
        draw: of those that are nobody's children; None: each architecture of the space is as likely as every other.
            `draw_within` finds some within narrow limits.
    """

    def __init__(
        self,
        space: Space,
        settings: EvolutionSettings,
        score: Combination,
        admits: Admits,
        *,
        draw: Draw | None = None,
    ) -> None:
        self.space, self.settings, self.score = space, settings, score
        self.history: list[Generation] = []
        self._admits, self._draw = admits, draw or space.sample
        self._rng = np.random.default_rng(settings.seed)
        # In the order asked for, which is the same however the work is shared. None: failed.
        self._told: dict[Genes, Metrics | None] = {}
        self._asked: list[Genes] = []
        self._exhausted = False

    @property
    def generation(self) -> int:
        """The number of the generation that is asked for, from 0."""
        return len(self.history)

    @property
    def scored(self) -> list[Genes]:
        """The architectures that were scored, in the order in which they were asked for."""
        return [genes for genes, metrics in self._told.items() if metrics is not None]

    @property
    def done(self) -> bool:
        """Whether there is nothing left to ask for."""
        return self.generation >= self.settings.generations or self._exhausted

    @property
    def exhausted(self) -> bool:
        """Whether the search ended early, for it found no architecture any more that is new and within the limits."""
        return self._exhausted

    def ask(self) -> list[Genes]:
        """The architectures of this generation that are still to be scored; none when the search is over.

        Raises:
            UserError: no architecture within the limits was found at all.
        """
        if not self.done and not self._asked:
            self._asked = self._children() if self.history else self._random(self.settings.population, [])
            if not self._asked and not self.history:
                what = f"no architecture of {self.space.name} within the limits among {TRIES} drawn at random"
                raise UserError(what, fix="give wider limits")
            self._exhausted = not self._asked
        return [genes for genes in self._asked if genes not in self._told]

    def tell(self, results: Mapping[Genes, Metrics | None]) -> None:
        """Note the metrics of architectures that were asked for, in any order and in any portions.

        Args:
            results: None for one whose scoring failed; it is not asked for again.

        Raises:
            ValueError: an architecture was not asked for, or was told already.
        """
        open_ones = set(self.ask()) if self._asked else set()
        for genes in results:
            if genes not in open_ones:
                raise ValueError(f"{genes} was not asked for")
        self._told.update(results)
        if self._asked and all(genes in self._told for genes in self._asked):
            for genes in self._asked:  # in the order of asking
                self._told[genes] = self._told.pop(genes)
            asked, self._asked = len(self._asked), []
            best = next(iter(self.ranking(1)), None)
            found = (None, None) if best is None or not math.isfinite(best.score) else (best.genes, best.score)
            self.history.append(Generation(len(self.history), asked, len(self._told), *found))

    def ranking(self, count: int | None = None) -> list[Ranked]:
        """The best `count` of all that were scored so far, or all; the earlier of equals comes first."""
        scored = [(genes, metrics) for genes, metrics in self._told.items() if metrics is not None]
        scores = self.score.scores([metrics for _, metrics in scored])
        ranked = [Ranked(genes, score, metrics) for (genes, metrics), score in zip(scored, scores, strict=True)]
        return sorted(ranked, key=lambda one: -one.score)[:count]

    def state(self) -> dict[str, Any]:
        """All there is to know, as JSON holds it."""
        return {
            "space": self.space.name,
            "settings": asdict(self.settings),
            "score": asdict(self.score),
            "rng": self._rng.bit_generator.state,
            "told": [[list(genes), None if one is None else _finite(one)] for genes, one in self._told.items()],
            "asked": [list(genes) for genes in self._asked],
            "history": [asdict(one) for one in self.history],
            "exhausted": self._exhausted,
        }

    @classmethod
    def from_state(
        cls,
        space: Space,
        settings: EvolutionSettings,
        score: Combination,
        admits: Admits,
        state: Mapping[str, Any],
        *,
        draw: Draw | None = None,
    ) -> Self:
        """The search that `state` was taken of.

        Args:
            space, settings, score, admits, draw: as of the search.
            state: of `state()`, also after a passage through JSON.

        Raises:
            UserError: it is of another space, or was made with other settings; the number of generations may change.
        """
        if state["space"] != space.name:
            what = f"the search that was begun is of the space {state['space']}, not of {space.name}"
            raise UserError(what, "--space", f"give --space {state['space']}, or another folder")
        for name, ours in (("settings", asdict(settings)), ("score", asdict(score))):
            theirs = {key: _plain(value) for key, value in state[name].items()}
            changed = [key for key in ours if key != "generations" and theirs.get(key) != _plain(ours[key])]
            if changed:
                key = changed[0]
                what = f"the search was begun with {key.replace('_', ' ')} {theirs.get(key)}, not {_plain(ours[key])}"
                raise UserError(what, fix="give the same, or another folder")
        self = cls(space, settings, score, admits, draw=draw)
        self._rng.bit_generator.state = state["rng"]
        self._told = {tuple(genes): None if one is None else _infinite(one) for genes, one in state["told"]}
        self._asked = [tuple(genes) for genes in state["asked"]]
        self.history = [
            Generation(**{**one, "best": None if one["best"] is None else tuple(one["best"])})
            for one in state["history"]
        ]
        self._exhausted = state["exhausted"]
        return self

    def _children(self) -> list[Genes]:
        parents = [one.genes for one in self.ranking(self.settings.parents)]
        children: list[Genes] = []
        if parents:
            children += self._new(self.settings.mutations, children, lambda: self._mutant(parents))
            children += self._new(self.settings.crossovers, children, lambda: self._cross(parents))
        return children + self._random(self.settings.population - len(children), children)

    def _random(self, count: int, others: Sequence[Genes]) -> list[Genes]:
        return self._new(count, others, lambda: self._draw(self._rng))

    def _new(self, count: int, others: Sequence[Genes], make: Callable[[], Genes]) -> list[Genes]:
        """Up to `count` architectures that were never asked for, are not among `others`, and are admitted."""
        known, found, failures = {*self._told, *others}, list[Genes](), 0
        while len(found) < count and failures < TRIES:
            genes = make()
            if genes in known or not self._admits(genes):
                failures += 1
                continue
            known.add(genes)
            found.append(genes)
            failures = 0
        return found

    def _mutant(self, parents: Sequence[Genes]) -> Genes:
        parent = parents[int(self._rng.integers(len(parents)))]
        child = self.space.mutate(parent, self._rng, self.settings.probability)
        cut = self.settings.mutated_genes
        return child if cut is None else child[:cut] + parent[cut:]

    def _cross(self, parents: Sequence[Genes]) -> Genes:
        first, second = (parents[int(at)] for at in self._rng.integers(len(parents), size=2))
        return self.space.crossover(first, second, self._rng)


def _finite(metrics: Metrics) -> dict[str, float | None]:
    """JSON has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _infinite(metrics: Mapping[str, float | None]) -> Metrics:
    return {name: math.inf if value is None else value for name, value in metrics.items()}


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
