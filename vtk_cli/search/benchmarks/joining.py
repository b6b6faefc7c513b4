"""Which architectures of a space a benchmark holds. Both are compared by genes, not by how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Space
from vtk_cli.search.benchmarks.benchmark import Benchmark, Setting, unknown_architecture

_SHOWN = 3


@dataclass(frozen=True)
class Match:
    """What a benchmark and a space have in common.

    Args:
        space: the space.
        texts: for each architecture of the space that the benchmark holds, how it writes it; in its order.
        foreign: what it holds besides.
    """

    space: Space
    texts: Mapping[Genes, str]
    foreign: tuple[str, ...]

    def draw(self, count: int | None, seed: int) -> tuple[Genes, ...]:
        """`count` of the common architectures, drawn without replacement, in the benchmark's order; None is all.

        Raises:
            UserError: there are not so many.
        """
        known = tuple(self.texts)
        if count is None:
            return known
        if count > len(known):
            raise UserError(f"the benchmark holds {len(known)} architectures, not {count}", "--num-archs", "give fewer")
        chosen = np.random.default_rng(seed).choice(len(known), count, replace=False)
        return tuple(known[index] for index in sorted(chosen.tolist()))


def match_space(space: Space, benchmark: Benchmark) -> Match:
    """The architectures of `space` in a benchmark.

    Raises:
        UserError: there are none, or one is written in two ways.
    """
    texts: dict[Genes, str] = {}
    foreign: list[str] = []
    for text in benchmark.archs():
        try:
            genes = space.parse(text)
        except UserError:
            foreign.append(text)
            continue
        if genes in texts:
            what = f"writes one architecture in two ways: {texts[genes]!r} and {text!r}"
            raise UserError(what, benchmark.name, "write it in one")
        texts[genes] = text
    if not texts:
        what = f"holds no architecture of {space.name}, but e.g. {', '.join(foreign[:_SHOWN])}"
        raise UserError(what, benchmark.name, "choose another --space")
    return Match(space, texts, tuple(foreign))


def truths(
    benchmark: Benchmark,
    match: Match,
    genes: Sequence[Genes],
    setting: Setting,
    seed: int | None = None,
) -> NDArray[np.float64]:
    """The accuracies of N architectures in percent, (N,); each the mean over trainings unless `seed` names one.

    Raises:
        UserError: the benchmark does not hold one of them, or not in this setting.
    """
    values = []
    for each in genes:
        if each not in match.texts:
            raise unknown_architecture(match.space.format(each), benchmark.name)
        values.append(benchmark.value(match.texts[each], setting.dataset, setting.split, setting.hp, seed))
    return np.array(values, dtype=np.float64)
