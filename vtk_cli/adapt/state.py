"""Where a run of active adaptation stands, and the steps from one state to the next; all of it pure.

    new -> source_ready -> adapted -> await_labels -> await_train -> adapted -> ... -> done

No image is asked about twice: what was in a query once is not in another, whatever the answer was; undoing a round
takes back its questions too. Budgets are met exactly: what an answer does not use up is asked for in the next round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from vtk_cli.adapt.budget import round_sizes
from vtk_cli.adapt.ledger import LabelRow, Partition, charged, partition, standing
from vtk_cli.errors import UserError

VERSION = 1
Phase = Literal["new", "source_ready", "adapted", "await_labels", "await_train", "done"]
Command = Literal["start", "query", "label", "train", "undo"]
ALLOWED: dict[Command, tuple[Phase, ...]] = {
    "start": ("new",),
    "query": ("adapted", "await_labels"),
    "label": ("await_labels", "await_train"),
    "train": ("source_ready", "await_labels", "await_train"),
    "undo": ("adapted", "await_labels", "await_train", "done"),
}
"""The phases in which a command has something to do."""


@dataclass(frozen=True)
class Budget:
    """Labels: in all; bought so far; asked for and not answered."""

    total: int
    used: int = 0
    pending: int = 0

    @property
    def left(self) -> int:
        """Labels that may still be bought, those that wait included."""
        return self.total - self.used


@dataclass(frozen=True)
class RoundRecord:
    """A round.

    Args:
        round: its number; 0 is the adaptation without labels.
        strategy: that chose the images; empty of round 0.
        asked: sample ids in the order of the query.
        draw: how often it was drawn anew.
        model: what was trained in it, relative to the run folder; None before that.
    """

    round: int
    strategy: str = ""
    asked: tuple[str, ...] = ()
    draw: int = 0
    model: str | None = None


@dataclass(frozen=True)
class AdaptState:
    """What `state.json` holds.

    Args:
        phase: what was done last.
        round: the number of the last round that was begun.
        rounds: how many there are to be.
        budget: of labels.
        strategy: of queries, where none other is asked for.
        recipe: of the training.
        seed: of the run.
        manifest_sha1: of the target's images.
        model: the weights to go on from, relative to the run folder.
        history: the rounds begun so far, in order.
        audit: images that are labelled to measure on only.
        version: of this layout.
    """

    phase: Phase
    round: int
    rounds: int
    budget: Budget
    strategy: str
    recipe: str
    seed: int
    manifest_sha1: str
    model: str | None = None
    history: tuple[RoundRecord, ...] = ()
    audit: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def open_round(self) -> RoundRecord | None:
        """The round that was asked and not yet trained on."""
        return self.history[-1] if self.phase in {"await_labels", "await_train"} else None

    @property
    def asked(self) -> frozenset[str]:
        """Everything that was ever asked."""
        return frozenset(name for record in self.history for name in record.asked)


def new_state(
    *, total: int, rounds: int, strategy: str, recipe: str, seed: int, manifest_sha1: str, audit: Sequence[str] = ()
) -> AdaptState:
    """A run that has not begun; raises `ValueError` where there are more rounds than labels."""
    round_sizes(total, rounds)
    return AdaptState(
        "new", 0, rounds, Budget(total), strategy, recipe, seed, manifest_sha1, audit=tuple(sorted(audit))
    )


def source_ready(state: AdaptState, model: str) -> AdaptState:
    """The classifier of the source is there."""
    _expect(state, "new")
    return replace(state, phase="source_ready", model=model)


def divide(state: AdaptState, rows: Iterable[LabelRow], pool: Sequence[str]) -> Partition:
    """The images of the pool by what is known of them now."""
    queried = state.open_round.asked if state.open_round else ()
    return partition(pool, rows, queried=queried, audit=state.audit)


def candidates(state: AdaptState, rows: Iterable[LabelRow], pool: Sequence[str]) -> tuple[str, ...]:
    """What may be asked: unlabelled, and never asked before."""
    asked = state.asked
    return tuple(name for name in divide(state, rows, pool).unlabelled if name not in asked)


def next_size(state: AdaptState, available: int, wanted: int | None = None) -> int:
    """Images that the next round asks about.

    Args:
        state: of the run.
        available: images that may be asked about.
        wanted: so many; None: the round's part of the budget, and what the rounds before it left over. What a smaller
            number leaves over is asked for later, what a larger one takes is missing then.

    Returns:
        No more than there are images.

    Raises:
        UserError: nothing is left to ask, or no budget.
    """
    if state.budget.left < 1:
        raise UserError(f"the budget of {state.budget.total} labels is spent", fix="evaluate, or start a larger run")
    if available < 1:
        raise UserError("the pool is exhausted: every image was asked about", fix="evaluate, or export the model")
    if wanted is not None:
        if not 1 <= wanted <= state.budget.left:
            raise UserError(
                f"{wanted} images are out of range", "--n", f"the budget has {state.budget.left} labels left"
            )
        return min(wanted, available)
    due = sum(round_sizes(state.budget.total, state.rounds)[: state.round + 1]) - state.budget.used
    return min(max(due, 1), state.budget.left, available)


def open_places(state: AdaptState, rows: Iterable[LabelRow]) -> int:
    """How many more images the open round may ask about, in place of those that were skipped or bad."""
    if state.open_round is None:
        return 0
    due = sum(round_sizes(state.budget.total, state.rounds)[: state.round])
    answered_ = charged(rows)
    return max(0, due - answered_ - len(pending(state, rows)))


def ask(
    state: AdaptState, rows: Sequence[LabelRow], pool: Sequence[str], ids: Sequence[str], strategy: str
) -> AdaptState:
    """Begin a round with a query.

    Args:
        state: in phase `adapted`.
        rows: of the ledger.
        pool: sample ids.
        ids: to ask about, in order; how many, `next_size` says.
        strategy: that chose them.

    Raises:
        ValueError: there are none, more than the budget has, not all different, or not all to be asked.
    """
    _expect(state, "adapted")
    _check_asked(ids, candidates(state, rows, pool))
    if not 1 <= len(ids) <= state.budget.left:
        raise ValueError(f"{len(ids)} images for a budget of {state.budget.left}")
    number = state.round + 1
    record = RoundRecord(number, strategy, tuple(ids))
    begun = replace(state, phase="await_labels", round=number, history=(*state.history, record))
    return settled(begun, rows)


def ask_further(state: AdaptState, rows: Sequence[LabelRow], pool: Sequence[str], ids: Sequence[str]) -> AdaptState:
    """Ask about more images in the open round, where answers used up no budget; raises `ValueError` as `ask`."""
    _expect(state, "await_labels", "await_train")
    _check_asked(ids, candidates(state, rows, pool))
    if len(ids) > open_places(state, rows):
        raise ValueError(f"{len(ids)} images for {open_places(state, rows)} places")
    record = replace(state.history[-1], asked=(*state.history[-1].asked, *ids))
    return settled(replace(state, history=(*state.history[:-1], record)), rows)


def withdraw(state: AdaptState, rows: Iterable[LabelRow]) -> AdaptState:
    """Take the open query back, for it to be drawn anew; `redraws` counts how often.

    Raises:
        UserError: there is none, or an answer to it is in.
    """
    require(state, "label")
    record = state.history[-1]
    if any(row.round == record.round and row.origin != "audit" for row in standing(rows).values()):
        raise UserError(
            f"labels of round {record.round} are in already", "--redo", "undo the round to ask about other images"
        )
    before = replace(state, phase="adapted", round=state.round - 1, history=state.history[:-1])
    return settled(before, rows)


def redrawn(state: AdaptState, draw: int) -> AdaptState:
    """The open round, noted as drawn for the `draw`-th time after the first."""
    _expect(state, "await_labels")
    return replace(state, history=(*state.history[:-1], replace(state.history[-1], draw=draw)))


def pending(state: AdaptState, rows: Iterable[LabelRow]) -> tuple[str, ...]:
    """What was asked in the open round and not answered, in the order of the query."""
    if state.open_round is None:
        return ()
    said = standing(rows)
    return tuple(name for name in state.open_round.asked if name not in said)


def settled(state: AdaptState, rows: Iterable[LabelRow]) -> AdaptState:
    """The state as the ledger has it: labels bought, labels that wait, and the phase that follows.

    To be called on a state that is read from disk: a process may have ended between the two files.
    """
    listed = tuple(rows)
    waiting = len(pending(state, listed))
    phase = state.phase
    if state.open_round is not None:
        phase = "await_labels" if waiting else "await_train"
    return replace(state, phase=phase, budget=Budget(state.budget.total, charged(listed), waiting))


def require_answers(state: AdaptState, rows: Iterable[LabelRow], *, partial: bool, run: str = "RUN") -> None:
    """Refuse to train before the answers are in.

    Args:
        state: of the run.
        rows: of the ledger.
        partial: some of them are enough.
        run: what the user calls the run.

    Raises:
        UserError: no answer is in, or some are missing and all are wanted.
    """
    require(state, "train", run)
    record = state.open_round
    missing = pending(state, rows)
    if record is None or not missing:
        return
    if len(missing) == len(record.asked):
        raise UserError(f"no label of round {record.round} is in", fix=f"vtk adapt label {run} FILE")
    if not partial:
        what = f"{len(record.asked) - len(missing)} of {len(record.asked)} answers of round {record.round} are in"
        raise UserError(what, fix=f"give the {len(missing)} missing, or train with --allow-partial")


def trained(state: AdaptState, rows: Sequence[LabelRow], pool: Sequence[str], model: str) -> AdaptState:
    """A round was trained on: round 0 after the source, else the open one. What was not answered is put back."""
    _expect(state, "source_ready", "await_labels", "await_train")
    if state.phase == "source_ready":
        history: tuple[RoundRecord, ...] = (RoundRecord(0, model=model),)
    else:
        history = (*state.history[:-1], replace(state.history[-1], model=model))
    after = settled(replace(state, phase="adapted", model=model, history=history), rows)
    over = after.round >= after.rounds or after.budget.left < 1 or not candidates(after, rows, pool)
    return replace(after, phase="done") if over else after


def undone(state: AdaptState, rows: Sequence[LabelRow], time: str) -> tuple[AdaptState, LabelRow]:
    """Take the last round back: its question, its answers, its model.

    Args:
        state: of the run.
        rows: of the ledger.
        time: now, for the row.

    Returns:
        The state before that round, and the row to append to the ledger; append it first.

    Raises:
        UserError: there is no round but the one without labels.
    """
    require(state, "undo")
    if state.round < 1:
        raise UserError("there is no round to undo", fix="round 0 asked for no label")
    history = state.history[:-1]
    row = LabelRow("", "", state.round, "undo", time)
    before = replace(state, phase="adapted", round=state.round - 1, history=history, model=history[-1].model)
    return settled(before, (*rows, row)), row


def require(state: AdaptState, command: Command, run: str = "RUN") -> None:
    """Refuse a command that has nothing to do in the phase of the run, and say which one has.

    Raises:
        UserError: it is not the time for it.
    """
    if state.phase not in ALLOWED[command]:
        raise UserError(
            f"`{command}` has nothing to do in phase {state.phase}", run, f"next: {next_command(state, run)}"
        )


def next_command(state: AdaptState, run: str = "RUN") -> str:
    """What to type next."""
    return {
        "new": f"vtk adapt start {run}",
        "source_ready": f"vtk adapt train {run}",
        "adapted": f"vtk adapt query {run}",
        "await_labels": f"vtk adapt label {run} FILE",
        "await_train": f"vtk adapt train {run}",
        "done": f"vtk adapt evaluate {run}",
    }[state.phase]


def check_invariants(state: AdaptState, rows: Sequence[LabelRow], pool: Sequence[str]) -> None:
    """Hold a state against what is always true.

    Raises:
        ValueError: the parts are not the pool, an image was asked about twice, or more was bought than the budget.
    """
    divide(state, rows, pool).check(pool)
    asked = [name for record in state.history for name in record.asked]
    if len(asked) != len(set(asked)):
        raise ValueError("an image was asked about twice")
    if set(asked) & set(state.audit):
        raise ValueError("an image of the audit was asked about")
    if state != settled(state, rows):
        raise ValueError("the state is not what the ledger says")
    if state.budget.used + state.budget.pending > state.budget.total:
        raise ValueError("more was asked for than the budget has")
    if [record.round for record in state.history] != list(range(len(state.history))):
        raise ValueError("the rounds are not in order")


def state_to_json(state: AdaptState) -> dict[str, Any]:
    """What `state.json` holds."""
    fields = asdict(state)
    return {"version": fields.pop("version"), **fields}


def state_from_json(value: Any, where: str) -> AdaptState:
    """Read what `state_to_json` gave.

    Raises:
        UserError: it is no such state, or of another version.
    """
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise UserError("is not the state of a run of this version", where, "restore the file, or start anew")
    try:
        history = tuple(RoundRecord(**{**one, "asked": tuple(one["asked"])}) for one in value["history"])
        state = AdaptState(
            **{**value, "budget": Budget(**value["budget"]), "history": history, "audit": tuple(value["audit"])}
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"is not the state of a run ({error})", where, "restore the file, or start anew") from error
    if state.phase not in get_args(Phase):
        raise UserError(f"unknown phase {state.phase!r}", where, f"there are {', '.join(get_args(Phase))}")
    return state


def _expect(state: AdaptState, *phases: Phase) -> None:
    if state.phase not in phases:
        raise ValueError(f"phase {state.phase}, not {' or '.join(phases)}")


def _check_asked(ids: Sequence[str], free: Sequence[str]) -> None:
    if len(set(ids)) != len(ids):
        raise ValueError("an image is asked about twice")
    if not set(ids) <= set(free):
        raise ValueError("an image is asked about that is not to be asked")
