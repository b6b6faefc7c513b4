"""Parts of the story that a whole run reaches only by accident."""

import dataclasses
import signal
import subprocess

import numpy as np
import pytest
import torch

from vtk_cli.engine.signals import StopRequest
from vtk_cli.errors import Preempted, UserError
from vtk_cli.similarity.preparation import _require_sense
from vtk_cli.similarity.sharding import _wait_for

from .conftest import CLASSES, small_member


def test_two_networks_that_are_never_right_have_no_sat(make_rows):
    comparison = make_rows([small_member(0), small_member(1)]).comparison
    said = comparison.logits.argmax(axis=2)
    unsaid = torch.tensor([min(set(range(CLASSES)) - set(pair)) for pair in said.T.tolist()])
    with pytest.raises(UserError, match="net0 and net1 classify nothing correctly, so no SAT can be computed"):
        _require_sense(dataclasses.replace(comparison, labels=unsaid))


def test_a_network_that_the_labels_do_not_fit_is_named(make_rows):
    comparison = make_rows([small_member(0), small_member(1)]).comparison
    right = comparison.logits[0]
    _require_sense(dataclasses.replace(comparison, logits=np.stack([right, right])))
    with pytest.raises(UserError, match=r"net1 is right on 0\.0 % of the images, chance is 25\.0 %"):
        _require_sense(dataclasses.replace(comparison, logits=np.stack([right, -right])))


def test_nobody_is_left_behind_when_the_run_is_stopped():
    workers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    with pytest.raises(Preempted, match="SIGTERM"):
        _wait_for(workers, StopRequest(signal.SIGTERM))
    assert all(worker.returncode == -signal.SIGTERM for worker in workers)


def test_the_end_of_every_process_is_waited_for():
    workers = [subprocess.Popen(["sleep", seconds]) for seconds in ("0", "0.5")]
    _wait_for(workers, StopRequest())
    assert [worker.returncode for worker in workers] == [0, 0]
