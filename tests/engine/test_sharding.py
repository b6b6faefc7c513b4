"""Processes that work on independent pieces are waited for, and stopped with the one that started them."""

from __future__ import annotations

import signal
import subprocess

import pytest

from vtk_cli.engine.pieces.sharding import _wait_for
from vtk_cli.engine.signals import StopRequest
from vtk_cli.errors import Preempted


def test_nobody_is_left_behind_when_the_run_is_stopped():
    workers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    with pytest.raises(Preempted, match=r"SIGTERM.*finished pieces"):
        _wait_for(workers, StopRequest(signal.SIGTERM), "finished pieces")
    assert all(worker.returncode == -signal.SIGTERM for worker in workers)


def test_the_end_of_every_process_is_waited_for():
    workers = [subprocess.Popen(["sleep", seconds]) for seconds in ("0", "0.5")]
    _wait_for(workers, StopRequest(), "finished pieces")
    assert [worker.returncode for worker in workers] == [0, 0]
