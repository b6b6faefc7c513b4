"""Trainings by several processes: `--nproc`, torchrun, two nodes, restarts, signals; all come to the same weights."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
import torch

from tests.engine.started_runs import EPOCHS, TRAIN, Started, by_nproc, by_torchrun, left_behind, record, weights
from tests.shared_runs import run_together

pytestmark = pytest.mark.slow  # processes of their own


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by two processes that nobody watches."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [*TRAIN, "--out", folder / "run"]
    ((first, _),) = run_together([command], folder=folder, cache=folder / "cache", preload="vtk_cli.train.job")
    assert first.object["epochs"] == EPOCHS
    return folder / "run"


def assert_same_weights(out: Path, other: Path) -> None:
    torch.testing.assert_close(weights(out), weights(other), rtol=0, atol=0)


def test_two_nodes_of_torchrun_train_the_network_of_one(undisturbed: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "two")
    nodes = [
        by_torchrun(
            *(tmp_path / "run", "--nnodes", "2", "--nproc-per-node", "1", *meeting, "--local-addr", "127.0.0.1"),
            name=name,
        )
        for name in ("first", "second")
    ]
    said = [node.wait() for node in nodes]
    assert [one.code for one in said] == [0, 0], said
    assert sorted(bool(one.out) for one in said) == [False, True]
    assert_same_weights(tmp_path / "run", undisturbed)


def test_torchrun_restarts_a_killed_process_and_the_training_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    node = by_torchrun(out, "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    node.wait_for_steps()
    node.kill_first_process()
    said = node.wait()
    assert said.object["epochs"] == EPOCHS
    assert "going on after step" in said.err
    (killed,) = record(out)["history"]
    assert (killed["status"], record(out)["status"]) == ("killed", "done")
    assert_same_weights(out, undisturbed)


def test_processes_that_are_killed_or_told_to_stop_go_on_to_the_same_weights(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed = by_nproc(out)
    killed.wait_for_steps()
    killed.kill_first_process()
    assert "process 0 of 2 was killed by SIGKILL" in killed.wait().failure

    stopped = by_nproc(out)
    stopped.wait_for_steps()
    stopped.signal(signal.SIGTERM)
    said = stopped.wait()
    assert said.code == 75
    assert said.err.count("stopped by SIGTERM after saving step") == 1
    assert "Traceback" not in said.err
    assert not left_behind(out)

    said = by_nproc(out).wait()
    assert said.object["epochs"] == EPOCHS  # one object on stdout, and nothing else
    assert "Traceback" not in said.err
    assert "torch" not in said.err
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run-said.out", "run-said.err"}
    assert record(out)["status"] == "done"
    assert [attempt["status"] for attempt in record(out)["history"]] == ["killed", "preempted"]
    assert not left_behind(out)
    assert_same_weights(out, undisturbed)


def test_a_second_interrupt_ends_all_at_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    started: Started = by_nproc(out)
    started.wait_for_run()
    for _ in range(2):
        started.signal(signal.SIGINT)
    said = started.wait()
    assert said.code == 130
    assert "Traceback" not in said.err
    assert not left_behind(out)
