"""Processes with parts of the weights train the network that one process trains, and leave the same checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine import parallel_trainings as trainings
from tests.engine.two_processes import run_world
from vtk_cli.console import Console
from vtk_cli.engine.checkpoint import latest_checkpoint

pytestmark = pytest.mark.slow

TRAININGS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "fused-in-turn": {"optimizer": "fused", "loss": "in turn", "plan": {"accumulate": 2, "epochs": 6}},
    "sgd-accumulated": {"optimizer": "sgd", "plan": {"accumulate": 2, "epochs": 6}},
    "adagrad": {"optimizer": "adagrad", "plan": {"ema_decay": None, "clip_norm": None}},
    "normalised": {"network": "normalised", "optimizer": "sgd"},
    "taught": {"network": "taught"},
    "lookahead": {"optimizer": "lookahead"},
    "overflowing": {"loss": "overflowing", "plan": {"clip_norm": None}},
    "twice": {"sittings": 2, "optimizer": "sgd"},
    "moody": {"network": "moody", "optimizer": "sgd", "loss": "asking"},
    "compared": {"network": "compared", "loss": "limited"},
}
BOTH = [(name, parallel) for name in TRAININGS for parallel in ("ddp", "fsdp") if (name, parallel) != ("moody", "ddp")]
"""torch refuses weights that take no part in a pass, where they are whole in every process."""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """All trainings by two processes, with whole weights and with parts."""
    folder = tmp_path_factory.mktemp("world")
    cases = {f"{name}-{parallel}": {**TRAININGS[name], "parallel": parallel} for name, parallel in BOTH}
    cases["refused"] = {"optimizer": "adamp", "parallel": "fsdp"}
    for parallel in ("ddp", "fsdp"):
        cases[f"own-{parallel}"] = {"network": "normalised", "sync": False, "loss": "judging", "parallel": parallel}
    assert run_world(Path(trainings.__file__), folder, json.dumps(cases)) == [0, 0]
    return folder, [torch.load(folder / f"seen-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The same by one process, with the batch of both."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, {name: trainings.train(case, None, folder / name)[1] for name, case in TRAININGS.items()}


def assert_equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "parallel"), BOTH)
def test_two_processes_end_where_one_with_the_whole_batch_ends(
    name: str, parallel: str, together: tuple[Path, list[dict[str, Any]]], alone: tuple[Path, dict[str, Any]]
) -> None:
    """Weights, buffers, averages, the optimiser, what evaluations and log lines say; in both processes."""
    expected = alone[1][name]
    assert len(expected["indices"]) >= 20
    for seen in together[1]:
        found = seen[f"{name}-{parallel}"]
        for part in ("model", "ema", "outputs", "rows", "optimizer"):
            assert_equal(found[part], expected[part])


@pytest.mark.parametrize(("name", "parallel"), BOTH)
def test_their_checkpoint_is_that_of_one_process(
    name: str, parallel: str, together: tuple[Path, list[dict[str, Any]]], alone: tuple[Path, dict[str, Any]]
) -> None:
    """Whole tensors under the same names: the optimiser's state too."""
    states = []
    for folder in (together[0] / f"{name}-{parallel}", alone[0] / name):
        found = latest_checkpoint(folder / f"checkpoints-{TRAININGS[name].get('sittings', 1) - 1}", Console(quiet=True))
        assert found is not None
        states.append(found[1])
    for part in ("updater", "place", "meter", "rows"):
        assert_equal(states[0][part], states[1][part])
    for one, other in zip(*(state["updater"]["optimizer"]["param_groups"] for state in states), strict=True):
        assert one == other


@pytest.mark.parametrize("name", TRAININGS)
def test_a_checkpoint_of_parts_holds_the_bits_that_the_training_ended_with(
    name: str, together: tuple[Path, list[dict[str, Any]]]
) -> None:
    last = TRAININGS[name].get("sittings", 1) - 1
    found = latest_checkpoint(together[0] / f"{name}-fsdp" / f"checkpoints-{last}", Console(quiet=True))
    assert found is not None
    for seen in together[1]:
        for part in ("model", "ema"):
            torch.testing.assert_close(found[1]["updater"][part], seen[f"{name}-fsdp"][part], rtol=0, atol=0)


@pytest.mark.parametrize("name", TRAININGS)
def test_each_process_holds_about_half(name: str, together: tuple[Path, list[dict[str, Any]]]) -> None:
    """Rows that do not go round are one process's; scalars are everyone's."""
    parts, wholes = zip(*(seen[f"{name}-fsdp"]["parts"] for seen in together[1]), strict=True)
    assert wholes[0] == wholes[1]
    scalars = 2 if name == "taught" else 1
    assert sum(parts) == wholes[0] + scalars
    assert max(parts) <= 0.62 * wholes[0]
    if (name, "ddp") in BOTH:
        first, second = (seen[f"{name}-ddp"]["parts"] for seen in together[1])
        assert first == second == [wholes[0], wholes[0]]


def test_an_optimiser_that_cannot_work_on_parts_is_refused_before_the_first_update(
    together: tuple[Path, list[dict[str, Any]]],
) -> None:
    for seen in together[1]:
        assert "the optimiser AdamP, as it is set up, does not work on parts" in seen["refused"]["error"]
        assert seen["refused"]["indices"] == []


def test_where_each_process_normalises_its_own_share_parts_are_as_whole_weights(
    together: tuple[Path, list[dict[str, Any]]],
) -> None:
    """The first process's running statistics go to all before the same passes; the passes depend on them here."""
    for seen in together[1]:
        for part in ("model", "ema", "outputs", "rows"):
            assert_equal(seen["own-fsdp"][part], seen["own-ddp"][part])
    running = [f"blocks.0.norm.running_{name}" for name in ("mean", "var")]
    assert all(together[1][0]["own-fsdp"]["model"][name].std() > 0 for name in running)
