"""Which architectures a user means: by genes, by name, by file, `random:N`, or `all`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.architecture import parse_architecture
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Space

MOST = 100_000
"""Of `all`."""
_TRIES = 1000


def architectures_of(words: Sequence[str], space: Space, seed: int) -> list[Genes]:
    """The different architectures that the words name, in their order.

    Args:
        words: as a user typed them.
        space: whose they are.
        seed: of `random:N`.

    Raises:
        UserError: a word names none, or none of this space; there are too many for `all` or too few for `random:N`.
    """
    found: dict[Genes, None] = {}
    for word in words:
        found |= dict.fromkeys(_of(word, space, seed))
    if not found:
        raise UserError("no architecture is named", "ARCH", "name some, or write random:N or all")
    return list(found)


def every(space: Space) -> list[Genes]:
    """All architectures of a space.

    Raises:
        UserError: there are too many.
    """
    if space.size > MOST:
        fix = "draw some: random:N"
        raise UserError(f"{space.name} has {space.size:,} architectures, too many for all", fix=fix)
    parts = product(*(position.options for position in space.positions))
    return [tuple(gene for stretch in part for gene in stretch) for part in parts]


def drawn(space: Space, count: int, seed: int) -> list[Genes]:
    """`count` different architectures, drawn by the seed.

    Raises:
        UserError: the space has not so many.
    """
    if count > space.size:
        raise UserError(f"{space.name} has {space.size:,} architectures, not {count:,}", fix="give fewer, or all")
    if 2 * count > space.size <= MOST:
        known = every(space)
        return [known[at] for at in np.random.default_rng(seed).permutation(len(known))[:count]]
    rng, found = np.random.default_rng(seed), dict[Genes, None]()
    while len(found) < count:
        found[space.sample(rng)] = None
    return list(found)


def _of(word: str, space: Space, seed: int) -> list[Genes]:
    if word == "all":
        return every(space)
    if word.startswith("random:"):
        count = word.removeprefix("random:")
        if not count.isdecimal() or not int(count):
            raise UserError(f"{word!r} is no number of architectures", fix="write e.g. random:100")
        return drawn(space, int(count), seed)
    return [parse_architecture(word, space.name).genes]
