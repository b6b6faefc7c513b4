"""One door to all strategies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from torch import Tensor

from vtk_cli.adapt.query.catalog import STRATEGIES, QuerySettings, split_count
from vtk_cli.adapt.query.clustering import clue_query, coreset_query, las_query, loss_diverse_query
from vtk_cli.adapt.query.gradients import badge_query, sdm_query
from vtk_cli.adapt.query.outputs import Picks, PoolOutputs
from vtk_cli.adapt.query.ranking import (
    aada_query,
    confidence_query,
    energy_query,
    entropy_query,
    loss_query,
    margin_query,
    random_query,
)
from vtk_cli.errors import UserError, nearest

_STREAM = 0x717279
"""Sets the draws of queries apart from others of the same seed."""


def query_rng(seed: int, round_number: int, draw: int = 0) -> np.random.Generator:
    """The generator of a round's query; `draw` counts how often it was drawn anew."""
    return np.random.default_rng([_STREAM, seed, round_number, draw])


@dataclass(frozen=True, eq=False)
class Request:
    """What a strategy is asked.

    Args:
        outputs: of the candidates, by id; of those of `random`, only the ids are looked at.
        labelled: embeddings (n, D) of what is labelled, for `coreset`.
        count: how many to choose.
        rng: of whatever is drawn.
        settings: of the strategies.
    """

    outputs: PoolOutputs
    labelled: Tensor | None
    count: int
    rng: np.random.Generator
    settings: QuerySettings


_CHOOSERS: MappingProxyType[str, Callable[[Request], Picks]] = MappingProxyType(
    {
        "loss": lambda r: loss_query(r.outputs, r.count, r.settings),
        "random": lambda r: random_query(r.outputs.ids, r.count, r.rng),
        "entropy": lambda r: entropy_query(r.outputs, r.count),
        "margin": lambda r: margin_query(r.outputs, r.count),
        "confidence": lambda r: confidence_query(r.outputs, r.count),
        "coreset": lambda r: coreset_query(r.outputs, r.labelled, r.count, r.rng),
        "badge": lambda r: badge_query(r.outputs, r.count, r.rng),
        "clue": lambda r: clue_query(r.outputs, r.count, r.rng, r.settings),
        "energy": lambda r: energy_query(r.outputs, r.count, r.settings),
        "sdm": lambda r: sdm_query(r.outputs, r.count, r.settings),
        "las": lambda r: las_query(r.outputs, r.count, r.rng, r.settings),
        "loss-diverse": lambda r: loss_diverse_query(r.outputs, r.count, r.rng, r.settings),
        "aada": lambda r: aada_query(r.outputs, r.count, r.rng),
    }
)


def select(
    strategy: str,
    outputs: PoolOutputs,
    labelled: Tensor | None,
    count: int,
    rng: np.random.Generator,
    *,
    settings: QuerySettings | None = None,
) -> Picks:
    """Choose images to ask about.

    The order of `outputs` does not matter: strategies see the images by id.

    Args:
        strategy: a name of `catalog.STRATEGIES`.
        outputs: of the candidates.
        labelled: embeddings (n, D) of what is labelled, for `coreset`.
        count: how many; as many as there are, where it is more.
        rng: of whatever is drawn; see `query_rng`.
        settings: of the strategies.

    Returns:
        `count` different images, in the order in which they are to be asked about.

    Raises:
        UserError: there is no such strategy, or the model has not what it asks.
    """
    if strategy not in _CHOOSERS:
        raise UserError(f"unknown strategy {strategy!r}", "--query", nearest(strategy, STRATEGIES))
    count = min(count, len(outputs))
    if count < 1:
        return Picks((), ())
    return _CHOOSERS[strategy](Request(outputs.in_order(), labelled, count, rng, settings or QuerySettings()))


def select_mixed(
    shares: Mapping[str, float],
    outputs: PoolOutputs,
    labelled: Tensor | None,
    count: int,
    rng: np.random.Generator,
    *,
    settings: QuerySettings | None = None,
) -> Picks:
    """Choose by several strategies, each its share, in turn; none chooses what one before it has chosen.

    Args:
        shares: by strategy, as `catalog.parse_strategy` gives them.
        outputs, labelled, count, rng, settings: as of `select`.
    """
    ids: list[str] = []
    scores: list[float] = []
    for name, part in split_count(min(count, len(outputs)), shares).items():
        left = outputs.of(frozenset(outputs.ids) - frozenset(ids))
        picks = select(name, left, labelled, part, rng, settings=settings)
        ids.extend(picks.ids)
        scores.extend(picks.scores)
    return Picks(tuple(ids), tuple(scores))


def select_within_quota(
    shares: Mapping[str, float],
    outputs: PoolOutputs,
    labelled: Tensor | None,
    count: int,
    rng: np.random.Generator,
    *,
    most: int,
    settings: QuerySettings | None = None,
) -> Picks:
    """Choose as `select_mixed` does, but no more than `most` images that the model takes for the same class.

    What is over is chosen anew from the other classes; where these have no image left, the quota grows by one.

    Args:
        shares, outputs, labelled, count, rng, settings: as of `select_mixed`.
        most: images of a predicted class, at least 1.

    Raises:
        UserError: `most` is out of range.
    """
    if most < 1:
        raise UserError(f"a quota of {most} images a class is out of range", "--class-quota", "give at least 1")
    class_of = dict(zip(outputs.ids, outputs.logits.argmax(1).tolist(), strict=True))
    chosen: dict[str, float] = {}
    taken: Counter[int] = Counter()
    while len(chosen) < min(count, len(outputs)):
        open_now = [name for name in outputs.ids if name not in chosen and taken[class_of[name]] < most]
        if not open_now:
            most += 1
            continue
        picks = select_mixed(shares, outputs.of(open_now), labelled, count - len(chosen), rng, settings=settings)
        for name, score in zip(picks.ids, picks.scores, strict=True):
            if taken[class_of[name]] < most:
                taken[class_of[name]] += 1
                chosen[name] = score
    return Picks(tuple(chosen), tuple(chosen.values()))
