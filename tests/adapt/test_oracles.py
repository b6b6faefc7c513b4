from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from vtk_cli.adapt.labels import check_answers, question_of, read_answers
from vtk_cli.adapt.ledger import LabelRow
from vtk_cli.adapt.oracle import Oracle
from vtk_cli.adapt.query.selecting import query_rng
from vtk_cli.adapt.run_files import csv_text
from vtk_cli.adapt.state import (
    AdaptState,
    ask,
    candidates,
    check_invariants,
    divide,
    new_state,
    next_size,
    pending,
    settled,
    source_ready,
    trained,
)
from vtk_cli.errors import UserError

POOL = tuple(f"{number:02d}" for number in range(30))
CLASSES = ("cat", "dog")
TRUTH = {name: int(name) % 2 for name in POOL}
Rows = tuple[LabelRow, ...]


class Poisoned(Mapping[str, int]):
    """Labels of which one that was not bought kills whoever looks at it."""

    def __init__(self) -> None:
        self.bought: set[str] = set()
        self.seen: list[str] = []

    def __getitem__(self, name: str) -> int:
        if name not in self.bought:
            pytest.fail(f"the label of {name} was looked at and not bought")
        self.seen.append(name)
        return TRUTH[name]

    def __contains__(self, name: object) -> bool:
        return name in TRUTH

    def __iter__(self) -> Iterator[str]:
        pytest.fail("all labels were looked at")

    def __len__(self) -> int:
        return len(TRUTH)


def begun() -> AdaptState:
    state = new_state(total=10, rounds=3, strategy="random", recipe="sequential", seed=0, manifest_sha1="")
    return trained(source_ready(state, "s"), (), POOL, "m")


def asked(state: AdaptState, rows: Rows) -> AdaptState:
    free = candidates(state, rows, POOL)
    order = query_rng(0, state.round + 1).permutation(len(free))[: next_size(state, len(free))]
    return ask(state, rows, POOL, [free[index] for index in order], "random")


def test_no_label_is_looked_at_before_it_is_bought() -> None:
    poisoned = Poisoned()
    oracle = Oracle(poisoned, CLASSES)
    state, rows = begun(), ()
    while state.phase != "done":
        state = asked(state, rows)
        assert len(poisoned.seen) == state.budget.used
        poisoned.bought |= set(pending(state, rows))
        answers = check_answers(
            oracle.answers(state, rows), question_of(state, POOL, CLASSES), rows, origin="oracle", time="now"
        )
        rows = (*rows, *answers.rows)
        state = trained(settled(state, rows), rows, POOL, "m")
        check_invariants(state, rows, POOL)
        assert dict(divide(state, rows, POOL).labelled) == {row.sample_id: row.label for row in rows}
    assert sorted(poisoned.seen) == sorted(poisoned.bought)
    assert len(poisoned.seen) == 10


def test_an_oracle_with_nothing_asked_says_nothing() -> None:
    assert Oracle(Poisoned(), CLASSES).answers(begun(), ()) == ()


def test_a_person_who_fills_in_the_true_labels_gets_the_ledger_of_the_oracle(tmp_path: Path) -> None:
    ledgers = []
    for manual in (False, True):
        state, rows = begun(), ()
        while state.phase != "done":
            state = asked(state, rows)
            if manual:
                path = tmp_path / f"{state.round}.csv"
                cells = [[name, CLASSES[TRUTH[name]]] for name in pending(state, rows)]
                path.write_text(csv_text([["sample_id", "label"], *cells]))
                given = read_answers(path)
            else:
                given = Oracle(TRUTH, CLASSES).answers(state, rows)
            answers = check_answers(given, question_of(state, POOL, CLASSES), rows, origin="oracle", time="now")
            rows = (*rows, *answers.rows)
            state = trained(settled(state, rows), rows, POOL, "m")
        ledgers.append(rows)
    assert ledgers[0] == ledgers[1]


def test_a_target_without_labels_has_no_oracle() -> None:
    with pytest.raises(UserError, match="--oracle: the target has no labels"):
        Oracle({}, CLASSES)
    with pytest.raises(UserError, match="has no label to simulate"):
        Oracle({"elsewhere": 0}, CLASSES).answers(asked(begun(), ()), ())
