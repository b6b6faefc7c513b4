"""The question of a round: chosen by a strategy, put into the state, written for people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vtk_cli.adapt.asking import DETAILS, Query, asked_rows, write_query
from vtk_cli.adapt.learner import Learner
from vtk_cli.adapt.ledger import LabelRow
from vtk_cli.adapt.measuring import pool_outputs
from vtk_cli.adapt.preparation import Lab
from vtk_cli.adapt.query.catalog import is_blind, parse_strategy
from vtk_cli.adapt.query.duplicates import without_near_duplicates
from vtk_cli.adapt.query.outputs import Picks, PoolOutputs
from vtk_cli.adapt.query.selecting import query_rng, select, select_mixed, select_within_quota
from vtk_cli.adapt.run_files import RunFiles
from vtk_cli.adapt.sorted_folders import write_images
from vtk_cli.adapt.state import (
    AdaptState,
    ask,
    ask_further,
    candidates,
    divide,
    next_size,
    open_places,
    redrawn,
    settled,
    withdraw,
)
from vtk_cli.errors import UserError

IMAGES = "images"
_FURTHER = 1000
"""Sets the draws of further images of a round apart from those of the round drawn anew."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Images to ask about.

    Args:
        picks: of the strategy.
        outputs: of the model for all candidates; None where nobody looked.
    """

    picks: Picks
    outputs: PoolOutputs | None


def ask_round(
    lab: Lab,
    learner: Learner,
    state: AdaptState,
    rows: Sequence[LabelRow],
    *,
    strategy: str | None = None,
    wanted: int | None = None,
    draw: int = 0,
) -> tuple[AdaptState, Chosen]:
    """Begin a round.

    Args:
        lab: of the run.
        learner: as the last round left it.
        state: in phase `adapted`.
        rows: of the ledger.
        strategy: in place of the run's.
        wanted: so many images, in place of the round's part of the budget.
        draw: how often the round was drawn before.

    Raises:
        UserError: nothing is left to ask, or no budget, or the model has not what the strategy asks.
    """
    free = candidates(state, rows, lab.pool.ids)
    count = next_size(state, len(free), wanted)
    named = strategy or state.strategy
    chosen = choose(lab, learner, state, rows, strategy=named, count=count, round_number=state.round + 1, draw=draw)
    asked = ask(state, rows, lab.pool.ids, chosen.picks.ids, named)
    return (redrawn(asked, draw) if draw else asked), chosen


def ask_more(lab: Lab, learner: Learner, state: AdaptState, rows: Sequence[LabelRow]) -> tuple[AdaptState, Chosen]:
    """Ask about more images in the open round, as many as skipped and bad ones left places.

    Raises:
        UserError: there is no such place.
    """
    places = open_places(state, rows)
    free = candidates(state, rows, lab.pool.ids)
    if not places or not free:
        raise UserError("no place of the round is open", "--further", "skipped and bad images leave places")
    record = state.history[-1]
    chosen = choose(
        lab,
        learner,
        state,
        rows,
        strategy=record.strategy,
        count=places,
        round_number=state.round,
        draw=_FURTHER + len(record.asked),
    )
    return ask_further(state, rows, lab.pool.ids, chosen.picks.ids), chosen


def asked_before(lab: Lab, learner: Learner, state: AdaptState, rows: Sequence[LabelRow]) -> Chosen:
    """The question of the open round once more; of one that got more images, the scores are not known any more."""
    record = state.history[-1]
    first = [row for row in rows if row.round != record.round or row.origin == "audit"]
    before = withdraw(settled(state, first), first)
    asked = record.asked
    chosen = choose(
        lab,
        learner,
        before,
        first,
        strategy=record.strategy,
        count=len(asked),
        round_number=record.round,
        draw=record.draw,
    )
    return chosen if chosen.picks.ids == asked else Chosen(Picks(asked, (float("nan"),) * len(asked)), None)


def choose(
    lab: Lab,
    learner: Learner,
    state: AdaptState,
    rows: Sequence[LabelRow],
    *,
    strategy: str,
    count: int,
    round_number: int,
    draw: int,
) -> Chosen:
    """Let a strategy choose `count` of the images that may be asked about."""
    options, pool = lab.options, lab.pool
    free = candidates(state, rows, pool.ids)
    mix = parse_strategy(strategy, recipe=state.recipe, where="--strategy")
    rng = query_rng(state.seed, round_number, draw)
    if is_blind(mix) and options.dedup is None and options.class_quota is None:
        nobody = PoolOutputs(free, torch.zeros(len(free), 1), torch.zeros(len(free), 1))
        return Chosen(select("random", nobody, None, count, rng), None)
    outputs = looked_at(lab, learner, free)
    labelled = _embeddings(lab, learner, list(divide(state, rows, pool.ids).labelled))
    apart = outputs if options.dedup is None else without_near_duplicates(outputs, labelled, options.dedup)
    if not len(apart):
        raise UserError("every image is like one that is labelled", "--dedup", "give a higher similarity, or none")
    settings = options.query_settings

    def select_some() -> Picks:
        if options.class_quota is None:
            return select_mixed(mix, apart, labelled, count, rng, settings=settings)
        return select_within_quota(mix, apart, labelled, count, rng, most=options.class_quota, settings=settings)

    return Chosen(lab.circumstances.processes.on_main(select_some), outputs)


def looked_at(lab: Lab, learner: Learner, ids: Sequence[str]) -> PoolOutputs:
    """What the model says of images of the pool."""
    here = lab.circumstances
    return pool_outputs(
        learner.parts,
        lab.target,
        lab.pool.rows(ids),
        ids,
        batch_size=here.scoring_batch,
        precision=here.precision,
        world=here.world,
    )


def write_question(
    lab: Lab,
    learner: Learner,
    files: RunFiles,
    state: AdaptState,
    chosen: Chosen,
    *,
    blind: bool = False,
    copies: bool = False,
) -> Path:
    """Write the files of the open round: table, contact sheets, labelling page.

    Args:
        lab: of the run.
        learner: that was asked.
        files: of the run.
        state: with the question in it.
        chosen: its images; of a question that got more, all of them.
        blind: hide what the model thinks.
        copies: copies of the images too, to be sorted.

    Returns:
        The folder of the round.
    """
    record = state.history[-1]
    guesses = None if blind else chosen.outputs or looked_at(lab, learner, chosen.picks.ids)
    folder = files.round(record.round)

    def write_down() -> None:
        query = Query(
            asked_rows(chosen.picks, lab.pool, lab.class_names, guesses),
            record.round,
            record.strategy,
            state.seed,
            record.draw,
            weights_sha1(learner),
            lab.class_names,
        )
        write_query(folder, query, lab.pool, chosen.outputs)
        if copies:
            write_images(folder / IMAGES, lab.pool, chosen.picks.ids)

    lab.circumstances.processes.on_main(write_down)
    return folder


def write_audit(lab: Lab, files: RunFiles, state: AdaptState) -> None:
    """Write the question of the audit: blind, for guesses lead whoever labels."""
    picks = Picks(state.audit, (float("nan"),) * len(state.audit))
    rows = asked_rows(picks, lab.pool, lab.class_names)
    write_query(files.audit, Query(rows, 0, "audit", state.seed, 0, "", lab.class_names), lab.pool)


def written_question(files: RunFiles, state: AdaptState) -> bool:
    """Whether the files of the open round are those of the question in the state."""
    try:
        found = json.loads((files.round(state.round) / DETAILS).read_text(encoding="utf-8"))
        return tuple(row["sample_id"] for row in found["rows"]) == state.history[-1].asked
    except (OSError, ValueError, KeyError, TypeError):
        return False


def extended(before: Sequence[str], chosen: Chosen) -> Chosen:
    """A question with those that were asked before it, whose scores are not known any more."""
    ids = (*before, *chosen.picks.ids)
    return replace(chosen, picks=Picks(ids, (*((float("nan"),) * len(before)), *chosen.picks.scores)), outputs=None)


def weights_sha1(learner: Learner) -> str:
    """The SHA-1 of the values of all weights and buffers, by name."""
    found = hashlib.sha1(usedforsecurity=False)
    for name, value in learner.parts.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _embeddings(lab: Lab, learner: Learner, ids: Sequence[str]) -> Tensor | None:
    return looked_at(lab, learner, ids).embeddings if ids else None
