"""`vtk prune run` by two processes that share each batch: the search of one process, and its ticket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.command_line import Said
from tests.prune.conftest import TINY, Prune
from tests.prune.test_resume import stopping
from tests.shared_runs import run_together
from vtk_cli.app import main
from vtk_cli.prune.ticket_file import read_ticket

pytestmark = pytest.mark.slow  # searches in processes of their own

# 20 updates with batches of 9, of which one process has 4 and the other 5.
SEARCH = (*TINY, "--steps", "20", "--every", "10", "--batch", "9", "--sync-bn", "--samples", "210", "--device", "cpu")
CASES: dict[str, tuple[str, ...]] = {
    "edge-popup": (
        *(*SEARCH, "--scope", "global", "--eval-every", "10", "--extractor-mode", "train"),
        *("--baselines", "random", "--baselines", "dense"),
    ),
    "gem-miner": (*SEARCH, "--algo", "gem-miner", "--scope", "global", "--moment-avg", "ama"),
    # Slowly: of a gradient that is next to nothing Adam makes a whole step, in whose direction rounding has a say.
    "dense": (*SEARCH, "--algo", "dense", "--moment-avg", "none", "--weights-lr", "5e-5"),
    "imp": (*SEARCH, "--algo", "imp", "--moment-avg", "none", "--weights-lr", "5e-5", "--rounds", "2", "--rewind", "2"),
}

TOGETHER: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (name, ()) for name in CASES if name != "imp"},
    **{f"{name}, in parts": (name, ("--parallel", "fsdp")) for name in CASES},
}
"""What two processes run, beside which run of one."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, prune_cache: Path) -> tuple[Path, dict[str, list[Said]]]:
    """The runs of one process and of two, and what the two said."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("VTK_CACHE", str(prune_cache))
        for name, command in CASES.items():
            assert main(["prune", "run", *command, "-q", "--json", "--out", f"{name}, one"]) == 0
    together = [
        ["prune", "run", *CASES[alone], *further, "--json", "--out", f"{name}, two"]
        for name, (alone, further) in TOGETHER.items()
    ]
    said = run_together(together, folder=root, cache=prune_cache, preload="vtk_cli.prune.job")
    return root, dict(zip(TOGETHER, said, strict=True))


def state_of(run: Path) -> dict[str, Any]:
    """The model in the last checkpoint of a run."""
    state: dict[str, Any] = torch.load(max((run / "checkpoints").glob("step-*")), weights_only=True)["updater"]["model"]
    return state


def numbers(quality: dict[str, Any]) -> dict[str, float]:
    """The measured numbers of a run."""
    found = {name: value["mean"] if isinstance(value, dict) else value for name, value in quality.items()}
    return {name: value for name, value in found.items() if isinstance(value, float)}


@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_come_to_the_scores_of_one(runs: tuple[Path, dict[str, list[Said]]], name: str) -> None:
    root, said = runs
    assert [one.code for one in said[name]] == [0, 0], said[name]
    one, two = state_of(root / f"{TOGETHER[name][0]}, one"), state_of(root / f"{name}, two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        if value.is_floating_point():
            tolerance = 1e-6 if key.startswith("search.") else 1e-5
            torch.testing.assert_close(two[key], value, atol=tolerance, rtol=1e-6, msg=key)
        else:
            assert torch.equal(value, two[key]), key


def test_the_ticket_and_what_is_measured_are_those_of_one(runs: tuple[Path, dict[str, list[Said]]]) -> None:
    root, said = runs
    for name in ("edge-popup", "gem-miner", "dense"):
        one, two = (json.loads((root / f"{name}, {count}" / "summary.json").read_text()) for count in ("one", "two"))
        assert one["kept"] == two["kept"]
        assert numbers(one["quality"]) == pytest.approx(numbers(two["quality"]), rel=1e-3)
        assert two == said[name][0].object
        assert said[name][1].out == ""


def test_each_baseline_is_made_once_and_is_that_of_one_process(runs: tuple[Path, dict[str, list[Said]]]) -> None:
    root, _ = runs
    one, two = (json.loads((root / f"edge-popup, {count}" / "summary.json").read_text()) for count in ("one", "two"))
    assert one["baselines"] == two["baselines"]


def test_masks_that_all_layers_compete_for_are_those_of_one_process_where_each_has_parts_of_the_scores(
    runs: tuple[Path, dict[str, list[Said]]],
) -> None:
    root, _ = runs
    for name in ("edge-popup", "gem-miner", "imp"):
        one, two = (read_ticket(root / f"{name}, {who}" / "ticket.vtkt") for who in ("one", "in parts, two"))
        assert one.masks.keys() == two.masks.keys()
        assert all(torch.equal(mask, two.masks[layer]) for layer, mask in one.masks.items())


def test_a_plan_says_how_many_processes_there_are(prune: Prune) -> None:
    plan = prune("run", *SEARCH, "--nproc", "2", "--parallel", "fsdp", "--dry-run", "--json").object
    assert plan["processes"] == 2


def test_a_search_that_one_process_began_two_end_alike(
    runs: tuple[Path, dict[str, list[Said]]], prune_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = runs
    monkeypatch.chdir(root)
    monkeypatch.setenv("VTK_CACHE", str(prune_cache))
    command = ["prune", "run", *CASES["gem-miner"]]
    with stopping(monkeypatch, 7, "SIGTERM"):
        assert main([*command, "--quiet", "--out", "begun by one"]) == 75
    ended = run_together(
        [[*command, "--out", "begun by one", "--json"]], folder=root, cache=prune_cache, preload="vtk_cli.prune.job"
    )
    assert [one.code for one in ended[0]] == [0, 0], ended
    whole, begun = state_of(root / "gem-miner, one"), state_of(root / "begun by one")
    for key, value in whole.items():
        if key.startswith("search."):
            torch.testing.assert_close(begun[key], value, atol=1e-6, rtol=1e-6, msg=key)
