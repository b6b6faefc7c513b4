"""Two processes train as one, fail as one and stop as one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.engine.two_processes import run_world
from tests.forked import clean_environment, free_port
from vtk_cli.engine.processes.distributed import join_world
from vtk_cli.engine.processes.launchers import first_host
from vtk_cli.errors import UserError

SCRIPT = Path(__file__).with_name("world_runs.py")
LAUNCHERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def seen_by_both(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Two processes on this machine, started by torchrun."""
    folder = tmp_path_factory.mktemp("torchrun")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    rendezvous = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    subprocess.run([*launch, *rendezvous, str(SCRIPT), str(folder), "train"], env=clean_environment(), check=True)
    return folder, seen_by_both(folder)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("world_runs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_torchrun_processes_find_each_other(together: tuple[Path, list[dict[str, Any]]]) -> None:
    for rank, seen in enumerate(together[1]):
        assert seen["world"] == [rank, 2, rank, rank == 0, "cpu"]
        assert seen["broadcast"] == {"from": 0}
        assert seen["gather"] == ["rank 0", "rank 1"]
        assert seen["largest"] == [1, 0]


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_trains(
    together: tuple[Path, list[dict[str, Any]]], script: ModuleType, tmp_path: Path
) -> None:
    """With accumulation, clipping, averaged weights and two losses an update."""
    alone = script.train(None, tmp_path)
    for name, model in (("weights", alone.model), ("ema", alone.ema)):
        for expected, *found in zip(model.parameters(), *(seen[name] for seen in together[1]), strict=True):
            for values in found:
                torch.testing.assert_close(torch.tensor(values), expected.detach(), rtol=0, atol=1e-6)
    rows = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (together[0] / "run", tmp_path)
    ]
    assert len(rows[0]) == len(rows[1])
    for two, one in zip(*rows, strict=True):
        assert two == pytest.approx(one, abs=1e-6)


@pytest.mark.slow
def test_gradients_stay_in_their_process_until_the_last_loss(together: tuple[Path, list[dict[str, Any]]]) -> None:
    (first, other_first), (second, other_second) = together[1][0]["gradients"]
    assert first != other_first
    assert second == other_second


@pytest.mark.slow
def test_both_processes_have_the_same_weights_to_the_last_bit(together: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = together[1]
    assert first["weights"] == second["weights"]
    assert first["resumed"]["weights"] == second["resumed"]["weights"]


@pytest.mark.slow
def test_every_process_draws_its_own_and_the_first_what_it_would_alone(
    together: tuple[Path, list[dict[str, Any]]],
) -> None:
    """Equal generators would drop the same units in every process."""
    found = together[1][0]["normalised"]
    first, second = found["drawn"]
    assert first == found["alone"] != second


@pytest.mark.slow
def test_what_is_evaluated_has_the_same_running_statistics_everywhere(
    together: tuple[Path, list[dict[str, Any]]],
) -> None:
    seen = together[1][0]["normalised"]["statistics"]
    assert len(seen) == 4  # two epochs, the weights and their average
    assert all(first == second for first, second in seen)
    assert len({str(first) for first, _ in seen}) == 4


@pytest.mark.slow
def test_the_first_process_owns_the_run_folder(together: tuple[Path, list[dict[str, Any]]]) -> None:
    assert json.loads((together[0] / "run" / "summary.json").read_text()) == {"rank": 0}
    assert json.loads((together[0] / "run" / "run.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_after_saving_and_they_resume_bit_for_bit(
    together: tuple[Path, list[dict[str, Any]]],
) -> None:
    for seen in together[1]:
        assert seen["resumed"]["message"].startswith("stopped by SIGTERM after saving step")
        assert seen["resumed"]["equal"]
    metrics = [(together[0] / name / "metrics.jsonl").read_text() for name in ("whole", "stopped")]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_an_error_that_one_process_knows_of_is_raised_in_both(together: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = (seen["failures"] for seen in together[1])
    assert first == second
    assert first["loss"].startswith("the loss is inf at step 2, in the batch of sample ")
    assert first["main"] == "there: no"
    assert "holds no run of vtk" in first["folder"]


@pytest.mark.slow
def test_a_process_waits_for_the_first_longer_than_torch_would(tmp_path: Path) -> None:
    assert run_world(Path(__file__).with_name("late_worlds.py"), tmp_path) == [0, 0]
    assert [(tmp_path / f"late-{rank}").read_text() for rank in range(2)] == ["done", "done"]


@pytest.mark.slow
def test_processes_of_a_slurm_step_find_each_other(tmp_path: Path) -> None:
    """What srun sets; here the step's first host is this machine."""
    step = {
        "SLURM_PROCID": "01",
        "SLURM_LOCALID": "01",
        "SLURM_NTASKS": "22",
        "SLURM_STEP_NUM_TASKS": "22",
        "SLURM_STEP_NODELIST": ["localhost"] * 2,
        "SLURM_JOB_ID": [os.getpid()] * 2,
        "SLURM_STEP_ID": "00",
    }
    assert run_world(SCRIPT, tmp_path, **step) == [0, 0]
    for rank, seen in enumerate(seen_by_both(tmp_path)):
        assert seen["world"] == [rank, 2, rank, rank == 0, "cpu"]
        assert seen["gather"] == ["rank 0", "rank 1"]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},  # a plain command inside an sbatch script of eight tasks
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},  # srun of a single task
    ],
)
def test_a_process_started_alone_is_alone(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LAUNCHERS, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with join_world("cpu") as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        assert world.broadcast("x") == "x"
        assert world.gather("x") == ["x"]
        assert world.largest(3, 4) == [3, 4]
        assert world.on_main(lambda: 5) == 5
        world.barrier()


def test_an_absent_device_is_refused_before_anyone_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="no device"), join_world("cuda:99"):
        pass


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu3", "gpu3"),
        ("gpu3,gpu4", "gpu3"),
        ("gpu[3-7,9]", "gpu3"),
        ("gpu[003,007-009]", "gpu003"),
        ("gpu[003-007,009],cpu[1-2]", "gpu003"),
        ("login,gpu[003-007]", "login"),
        ("rack[2-3]-ib.cluster", "rack2-ib.cluster"),
    ],
)
def test_the_first_host_of_a_slurm_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
