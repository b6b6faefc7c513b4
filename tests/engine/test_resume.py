"""A training that is killed and started again ends exactly where the undisturbed one ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.training_runs import exit_codes
from tests.forked import in_a_fork

pytestmark = pytest.mark.slow  # some twenty trainings in processes of their own

KILLED, PREEMPTED, INTERRUPTED = -9, 75, 130

STOPS: dict[str, tuple[dict[str, Any], int]] = {
    "killed-before-the-first-checkpoint": ({"at": 1}, KILLED),
    "killed-in-the-middle-of-an-epoch": ({"at": 7}, KILLED),
    "killed-with-workers": ({"at": 10, "workers": 2}, KILLED),
    "killed-in-an-evaluation": ({"at_evaluation": 1}, KILLED),
    "killed-while-a-checkpoint-is-written": ({"at_publishing": 6}, KILLED),
    "sigterm": ({"at": 5, "signal": "SIGTERM"}, PREEMPTED),
    "sigusr1": ({"at": 0, "signal": "SIGUSR1"}, PREEMPTED),
    "sigint": ({"at": 13, "signal": "SIGINT"}, INTERRUPTED),
    "sigterm-in-the-last-evaluation": ({"at_evaluation": 3, "signal": "SIGTERM"}, PREEMPTED),
    "sigterm-to-the-workers-too": ({"at": 6, "signal": "SIGTERM", "group": True, "workers": 2}, PREEMPTED),
    "sigint-to-the-workers-too": ({"at": 6, "signal": "SIGINT", "group": True, "workers": 2}, INTERRUPTED),
}


def run_cases(cases: list[dict[str, Any]]) -> list[int]:
    codes: list[int] = in_a_fork(exit_codes, cases, modules=["vtk_cli.engine.loop"])
    return codes


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """The undisturbed run, and for every stop the stopped run (`NAME`'s code) and its resumption (`NAME again`'s)."""
    folder = tmp_path_factory.mktemp("runs")
    cases: dict[str, dict[str, Any]] = {"undisturbed": {}, "undisturbed-with-workers": {"workers": 2}}
    for name, (stop, _) in STOPS.items():
        cases |= {name: stop, f"{name} again": {}}
    full = [{**case, "out": str(folder / name.removesuffix(" again"))} for name, case in cases.items()]
    return folder, dict(zip(cases, run_cases(full), strict=True))


def same_bits(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("stop", STOPS)
def test_a_stopped_run_ends_with_the_exit_code_of_its_stop(stop: str, runs: tuple[Path, dict[str, int]]) -> None:
    _, codes = runs
    assert (codes[stop], codes[f"{stop} again"]) == (STOPS[stop][1], 0)


@pytest.mark.parametrize("stop", ["undisturbed-with-workers", *STOPS])
def test_a_resumed_run_has_the_weights_and_metrics_of_the_undisturbed_one_bit_for_bit(
    stop: str, runs: tuple[Path, dict[str, int]]
) -> None:
    folder, _ = runs
    expected = torch.load(folder / "undisturbed" / "result.pt", weights_only=True)
    assert same_bits(torch.load(folder / stop / "result.pt", weights_only=True), expected)
    assert (folder / stop / "metrics.jsonl").read_bytes() == (folder / "undisturbed" / "metrics.jsonl").read_bytes()


def test_a_run_that_got_a_signal_says_where_its_state_is(runs: tuple[Path, dict[str, int]]) -> None:
    folder, _ = runs
    message = (folder / "sigterm" / "error.txt").read_text()
    assert message.startswith(f"stopped by SIGTERM after saving step 6 in {folder / 'sigterm' / 'checkpoints'};")


def test_the_metrics_have_a_row_an_epoch_and_the_rows_of_steps_between(runs: tuple[Path, dict[str, int]]) -> None:
    folder, _ = runs
    rows = [json.loads(line) for line in (folder / "undisturbed" / "metrics.jsonl").read_text().splitlines()]
    assert [(row.get("epoch"), row["step"], "norm" in row) for row in rows] == [
        (1, 4, False),
        (None, 5, False),
        (2, 8, True),
        (None, 10, False),
        (3, 12, False),
        (None, 15, False),
        (4, 16, True),
    ]
    last = torch.load(folder / "undisturbed" / "result.pt", weights_only=True)["metrics"]
    assert last == rows[-1]


def test_two_checkpoints_are_kept(runs: tuple[Path, dict[str, int]]) -> None:
    folder, _ = runs
    kept = sorted(path.name[:13] for path in (folder / "undisturbed" / "checkpoints").iterdir())
    assert kept == ["step-00000015", "step-00000016"]
