"""A training goes on in another number of processes, and with the weights held in another way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine import parallel_trainings as trainings
from tests.engine.two_processes import run_world

pytestmark = pytest.mark.slow

PLAN = {"epochs": 4, "accumulate": 2, "checkpoint_steps": 3}
CASE: dict[str, Any] = {"plan": PLAN}
FIRST, SECOND = 4, 11
"""Steps in which a sitting is cut off: the next one goes on after the third and the ninth."""
FAILURES: dict[str, dict[str, Any]] = {
    f"failing at {batch}, {parallel}": {**CASE, "parallel": parallel, "fails_at": batch, "folder": f"failing-{batch}"}
    for batch, parallel in ((0, "ddp"), (5, "fsdp"), (13, "ddp"))
}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    return trainings.train(CASE, None, None)[1]


@pytest.fixture(scope="module")
def sittings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What was seen in each sitting of three trainings: 1, 2, 1 processes; whole, in parts, whole; in parts, 1."""
    folder = tmp_path_factory.mktemp("changed")
    first = trainings.train({**CASE, "stop_at": FIRST}, None, folder / "numbers")[1]
    cases = {
        "two": {**CASE, "parallel": "ddp", "stop_at": SECOND, "folder": "numbers"},
        "whole": {**CASE, "parallel": "ddp", "stop_at": FIRST, "folder": "ways"},
        "parts": {**CASE, "parallel": "fsdp", "stop_at": SECOND, "folder": "ways"},
        "whole again": {**CASE, "parallel": "ddp", "folder": "ways"},
        "parts first": {**CASE, "parallel": "fsdp", "stop_at": FIRST, "folder": "both"},
        **FAILURES,
    }
    assert run_world(Path(trainings.__file__), folder, json.dumps(cases)) == [0, 0]
    ranks = [torch.load(folder / f"seen-{rank}.pt", weights_only=True) for rank in range(2)]
    both = {name: joined(*(seen[name] for seen in ranks)) for name in cases if name not in FAILURES}
    return {
        "numbers": [first, both["two"], trainings.train(CASE, None, folder / "numbers")[1]],
        "ways": [both["whole"], both["parts"], both["whole again"]],
        "failures": [seen[name] for name in FAILURES for seen in ranks],
        "both": [both["parts first"], trainings.train(CASE, None, folder / "both")[1]],
    }


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What the first process saw, and the samples of both."""
    pairs = zip(first["indices"], second["indices"], strict=True)
    return {**first, "indices": [one + other for one, other in pairs]}


@pytest.mark.parametrize("name", ["numbers", "ways", "both"])
def test_it_ends_where_the_undisturbed_one_ends(
    name: str, sittings: dict[str, list[dict[str, Any]]], undisturbed: dict[str, Any]
) -> None:
    for part in ("model", "ema", "rows"):
        torch.testing.assert_close(sittings[name][-1][part], undisturbed[part], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["numbers", "ways", "both"])
def test_every_sitting_sees_the_samples_in_the_order_of_the_undisturbed_one(
    name: str, sittings: dict[str, list[dict[str, Any]]], undisturbed: dict[str, Any]
) -> None:
    order = undisturbed["indices"]
    for begin, seen in zip((0, 6, 18), sittings[name], strict=False):
        found = seen["indices"]
        assert found == order[begin : begin + len(found)]
    assert len(order) == 32
    ends = begin + len(found)
    assert ends == len(order)


def test_what_the_data_of_one_process_raises_is_raised_in_all(sittings: dict[str, list[dict[str, Any]]]) -> None:
    assert len(sittings["failures"]) == 6
    for seen in sittings["failures"]:
        assert seen["error"].startswith("the second process: sample ")
