from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtk_cli.adapt.ledger import BAD, OTHER, SKIP, LabelRow, Origin, partition, standing
from vtk_cli.adapt.state import (
    AdaptState,
    ask,
    ask_further,
    candidates,
    check_invariants,
    divide,
    new_state,
    next_size,
    open_places,
    pending,
    redrawn,
    require,
    require_answers,
    settled,
    source_ready,
    state_from_json,
    state_to_json,
    trained,
    undone,
    withdraw,
)
from vtk_cli.errors import UserError

POOL = tuple(f"{number:03d}" for number in range(50))
Rows = tuple[LabelRow, ...]


def begun(total: int = 12, rounds: int = 3, audit: Sequence[str] = ()) -> AdaptState:
    state = new_state(
        total=total, rounds=rounds, strategy="random", recipe="sequential", seed=0, manifest_sha1="m", audit=audit
    )
    return trained(source_ready(state, "ckpt/source.pt"), (), POOL, "ckpt/round_00.pt")


def asked(state: AdaptState, rows: Rows) -> AdaptState:
    free = candidates(state, rows, POOL)
    return ask(state, rows, POOL, free[: next_size(state, len(free))], "random")


def row(name: str, label: str, state: AdaptState, origin: Origin = "human") -> LabelRow:
    return LabelRow(name, label, state.round, origin, "now")


def answered(state: AdaptState, rows: Rows, label: str = "cat") -> Rows:
    return (*rows, *(row(name, label, state) for name in pending(state, rows)))


def through(state: AdaptState, rows: Rows = (), label: str = "cat") -> tuple[AdaptState, Rows]:
    state = asked(state, rows)
    rows = answered(state, rows, label)
    state = settled(state, rows)
    return trained(state, rows, POOL, f"ckpt/round_{state.round:02d}.pt"), rows


def test_rounds_of_an_obedient_person_spend_the_budget_exactly() -> None:
    state, rows = begun(13, 3), ()
    used = []
    while state.phase != "done":
        state, rows = through(state, rows)
        check_invariants(state, rows, POOL)
        used.append(state.budget.used)
    assert used == [4, 8, 13]
    assert state.budget.pending == 0
    assert len(divide(state, rows, POOL).labelled) == 13


def test_the_parts_are_the_pool_and_apart() -> None:
    state = begun(audit=POOL[-3:])
    state = asked(state, ())
    first, second, third, fourth = pending(state, ())
    rows = (
        row(first, "cat", state),
        row(second, BAD, state),
        row(third, OTHER, state),
        row(POOL[-1], "dog", state, "audit"),
    )
    state = settled(state, rows)
    parts = divide(state, rows, POOL)
    parts.check(POOL)
    assert (dict(parts.labelled), parts.bad, parts.other, parts.queried) == (
        {first: "cat"},
        (second,),
        (third,),
        (fourth,),
    )
    assert parts.audit == POOL[-3:]
    assert set(parts.without_label) == set(POOL) - {first, second, third, *POOL[-3:]}
    assert (state.budget.used, state.budget.pending) == (2, 1)
    assert state.phase == "await_labels"


def test_parts_that_overlap_or_miss_an_image_are_noticed() -> None:
    parts = partition(POOL, ())
    with pytest.raises(ValueError, match="not the pool"):
        parts.check(POOL[1:])
    with pytest.raises(ValueError, match="two parts"):
        type(parts)({POOL[0]: "cat"}, POOL).check(POOL)


def test_skipped_images_go_back_uncharged_and_are_not_asked_again() -> None:
    state, rows = through(begun(), label=SKIP)
    assert state.budget.used == 0
    assert set(divide(state, rows, POOL).unlabelled) == set(POOL)
    assert not state.asked & set(candidates(state, rows, POOL))
    assert next_size(state, 40) == 8, "the next round makes up for it"


def test_skipped_images_can_be_replaced_within_the_round() -> None:
    state = asked(begun(), ())
    rows = answered(state, (), SKIP)[:3]
    state = settled(state, rows)
    assert open_places(state, rows) == 3
    free = candidates(state, rows, POOL)
    with pytest.raises(ValueError, match="4 images for 3 places"):
        ask_further(state, rows, POOL, free[:4])
    state = ask_further(state, rows, POOL, free[:3])
    check_invariants(state, rows, POOL)
    assert open_places(state, rows) == 0
    assert len(pending(state, rows)) == 4


def test_nothing_is_asked_twice() -> None:
    state, rows = through(begun())
    with pytest.raises(ValueError, match="not to be asked"):
        ask(state, rows, POOL, sorted(state.asked), "random")
    with pytest.raises(ValueError, match="asked about twice"):
        ask(state, rows, POOL, [POOL[9]] * 4, "random")


def test_a_query_of_more_than_the_budget_has_is_refused() -> None:
    with pytest.raises(ValueError, match="13 images for a budget of 12"):
        ask(begun(), (), POOL, POOL[:13], "random")
    with pytest.raises(UserError, match="--n: 13 images are out of range; the budget has 12 labels left"):
        next_size(begun(), len(POOL), 13)


def test_what_a_smaller_round_leaves_over_is_asked_for_in_the_next() -> None:
    state = begun()
    assert next_size(state, len(POOL)) == 4
    assert next_size(state, len(POOL), 1) == 1
    state = ask(state, (), POOL, POOL[:1], "random")
    rows = answered(state, ())
    state = trained(settled(state, rows), rows, POOL, "m")
    assert next_size(state, len(POOL)) == 7


def test_undoing_an_unasked_label_gives_back_the_answer_before_it() -> None:
    state, rows = through(begun(), label=SKIP)
    second = asked(state, rows)
    later = (*rows, row(POOL[0], "cat", second, "extra"))
    assert POOL[0] in divide(second, later, POOL).labelled
    _, tombstone = undone(settled(second, later), later, "now")
    assert standing((*later, tombstone)) == standing(rows)


def test_undoing_a_round_restores_the_state_before_it() -> None:
    before, rows = through(begun())
    after, later = through(before, rows)
    undone_state, tombstone = undone(after, later, "now")
    assert undone_state == before
    assert divide(undone_state, (*later, tombstone), POOL) == divide(before, rows, POOL)
    check_invariants(undone_state, (*later, tombstone), POOL)
    asked_state = asked(before, rows)
    assert undone(asked_state, rows, "now")[0] == before
    again, last = through(undone_state, (*later, tombstone))
    assert again == after
    assert divide(again, last, POOL) == divide(after, later, POOL)


def test_undoing_keeps_the_audit_and_stops_at_round_0() -> None:
    state = begun(audit=POOL[:2])
    audit = tuple(row(name, "cat", state, "audit") for name in POOL[:2])
    after, rows = through(state, audit)
    back, tombstone = undone(after, rows, "now")
    assert back == state
    assert [one.sample_id for one in (*rows, tombstone) if one.origin == "audit"] == list(POOL[:2])
    with pytest.raises(UserError, match="no round to undo"):
        undone(back, (*rows, tombstone), "now")


def test_a_query_can_be_drawn_anew_until_a_label_is_in() -> None:
    state = asked(begun(), ())
    again = withdraw(state, ())
    assert again == begun()
    assert redrawn(asked(again, ()), 1).history[-1].draw == 1
    with pytest.raises(UserError, match="labels of round 1 are in already"):
        withdraw(state, answered(state, ())[:1])


def test_a_whole_pool_can_be_labelled_and_then_no_more_is_asked() -> None:
    state, rows = through(begun(len(POOL), 1))
    assert state.phase == "done"
    assert divide(state, rows, POOL).without_label == ()
    skipped, rows = through(begun(len(POOL), 1), label=SKIP)
    assert skipped.phase == "done"
    with pytest.raises(UserError, match="exhausted"):
        next_size(skipped, len(candidates(skipped, rows, POOL)))


def test_training_waits_for_answers() -> None:
    state = asked(begun(), ())
    with pytest.raises(UserError, match=r"no label of round 1 is in; vtk adapt label R FILE"):
        require_answers(state, (), partial=True, run="R")
    rows = answered(state, ())[:3]
    with pytest.raises(UserError, match=r"3 of 4 answers .* --allow-partial"):
        require_answers(state, rows, partial=False)
    require_answers(state, rows, partial=True)
    after = trained(state, rows, POOL, "m")
    assert (after.budget.used, after.budget.pending) == (3, 0)
    assert next_size(after, 46) == 5
    check_invariants(after, rows, POOL)


def test_a_command_out_of_turn_names_the_next_one() -> None:
    state = asked(begun(), ())
    with pytest.raises(UserError, match="next: vtk adapt query R"):
        require(begun(), "label", "R")
    rows = answered(state, ())
    with pytest.raises(UserError, match="next: vtk adapt train R"):
        require(settled(state, rows), "query", "R")


def test_a_state_survives_its_file() -> None:
    state, _ = through(begun(audit=POOL[:2]))
    written = state_to_json(state)
    assert list(written)[:2] == ["version", "phase"]
    assert state_from_json(json.loads(json.dumps(written)), "state.json") == state


@pytest.mark.parametrize("damage", [{"version": 2}, {"phase": "lost"}, {"budget": {"all": 3}}, {"history": 3}])
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"state\.json"):
        state_from_json({**state_to_json(begun()), **damage}, "state.json")


def test_a_ledger_that_is_ahead_of_the_state_brings_it_forward() -> None:
    state = asked(begun(), ())
    rows = answered(state, ())
    assert settled(state, rows).phase == "await_train"
    assert settled(state, rows).budget.used == 4


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), total=st.integers(1, 50), rounds=st.integers(1, 8))
def test_whatever_people_do_the_invariants_hold(seed: int, total: int, rounds: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    state, rows = begun(total, min(rounds, total), audit=draw.sample(POOL, draw.choice([0, 0, 5]))), ()
    for _ in range(40):
        if state.phase == "adapted":
            free = candidates(state, rows, POOL)
            size = next_size(state, len(free))
            state = ask(state, rows, POOL, draw.sample(free, size), "random")
        elif draw.random() < 0.15:
            state, tombstone = undone(state, rows, "now")
            rows = (*rows, tombstone)
        elif (waiting := pending(state, rows)) and draw.random() < 0.8:
            for name in draw.sample(waiting, draw.randint(1, len(waiting))):
                rows = (*rows, row(name, draw.choice(["cat", "dog", SKIP, BAD, OTHER]), state))
            state = settled(state, rows)
        elif (places := open_places(state, rows)) and (free := candidates(state, rows, POOL)) and draw.random() < 0.5:
            state = ask_further(state, rows, POOL, free[: draw.randint(1, places)])
        elif state.phase in {"await_labels", "await_train"}:
            state = trained(state, rows, POOL, f"ckpt/round_{state.round:02d}.pt")
        else:
            break
        check_invariants(state, rows, POOL)


def test_undoing_a_round_keeps_what_was_said_of_the_audit_in_it() -> None:
    state = asked(begun(audit=POOL[:2]), ())
    rows = (row(POOL[0], "cat", state, "audit"), *answered(state, ()))
    _, tombstone = undone(settled(state, rows), rows, "now")
    assert list(standing((*rows, tombstone))) == [POOL[0]]
