"""One door to all strategies."""

from __future__ import annotations

from collections.abc import Mapping

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


def select(
    strategy: str,
    outputs: PoolOutputs,
    labelled: Tensor | None,
    count: int,
    rng: np.random.Generator,
    settings: QuerySettings | None = None,
) -> Picks:
    """Choose images to ask about.

    The order of `outputs` does not matter: strategies see the images by id.

    Args:
        strategy: a name of `catalog.STRATEGIES`.
        outputs: of the candidates; of those of `random`, only the ids are looked at.
        labelled: embeddings (n, D) of what is labelled, for `coreset`.
        count: how many; as many as there are, where it is more.
        rng: of whatever is drawn; see `query_rng`.
        settings: of the strategies.

    Returns:
        `count` different images, in the order in which they are to be asked about.

    Raises:
        UserError: there is no such strategy, or the model has not what it asks.
    """
    told, seen, count = settings or QuerySettings(), outputs.in_order(), min(count, len(outputs))
    match strategy:
        case "loss":
            return loss_query(seen, count, told)
        case "random":
            return random_query(seen.ids, count, rng)
        case "entropy":
            return entropy_query(seen, count)
        case "margin":
            return margin_query(seen, count)
        case "confidence":
            return confidence_query(seen, count)
        case "coreset":
            return coreset_query(seen, labelled, count, rng)
        case "badge":
            return badge_query(seen, count, rng)
        case "clue":
            return clue_query(seen, count, rng, told)
        case "energy":
            return energy_query(seen, count, told)
        case "sdm":
            return sdm_query(seen, count, told)
        case "las":
            return las_query(seen, count, rng, told)
        case "loss-diverse":
            return loss_diverse_query(seen, count, rng, told)
        case "aada":
            return aada_query(seen, count, rng)
    raise UserError(f"unknown strategy {strategy!r}", "--query", nearest(strategy, STRATEGIES))


def select_mixed(
    shares: Mapping[str, float],
    outputs: PoolOutputs,
    labelled: Tensor | None,
    count: int,
    rng: np.random.Generator,
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
        picks = select(name, left, labelled, part, rng, settings)
        ids.extend(picks.ids)
        scores.extend(picks.scores)
    return Picks(tuple(ids), tuple(scores))
