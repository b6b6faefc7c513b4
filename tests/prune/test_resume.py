"""A search that is killed or told to stop, and started again, ends bit for bit as one that was left alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.prune.conftest import TINY, Prune
from vtk_cli.engine.loop import Clock
from vtk_cli.prune.objective import MatchingObjective

FAST = (*TINY, "--steps", 9, "--checkpoint-seconds", 0, "--eval-every", 3, "--quiet")
COMPARED = ("ticket.vtkt", "metrics.jsonl", "samples/step-00000009.png", "plots/samples-over-training.png")


class Killed(BaseException):
    """What ends a process ends the command here, wherever it is."""


@contextmanager
def stopping(monkeypatch: pytest.MonkeyPatch, at: int, how: str) -> Iterator[None]:
    """In update `at` the process is killed, or gets a signal."""
    losses = MatchingObjective.__call__

    def call(self: MatchingObjective, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> torch.Tensor:
        if clock.step == at and how == "kill":
            raise Killed
        if clock.step == at:
            os.kill(os.getpid(), signal.Signals[how])
        return losses(self, model, batch, clock)

    with monkeypatch.context() as patched:
        patched.setattr(MatchingObjective, "__call__", call)
        yield


@pytest.mark.parametrize(
    ("at", "how", "algorithm"),
    [
        (0, "kill", "edge-popup"),
        (3, "kill", "edge-popup"),
        (4, "SIGTERM", "edge-popup"),
        (5, "SIGUSR1", "edge-popup"),
        (4, "kill", "gem-miner"),
        (4, "kill", "imp"),
    ],
)
def test_a_stopped_search_goes_on_to_the_very_same_end(
    prune: Prune, monkeypatch: pytest.MonkeyPatch, at: int, how: str, algorithm: str
) -> None:
    options = (*FAST, "--algo", algorithm, "--rounds", 2)
    assert prune("run", *options, "--out", "alone").code == 0
    with stopping(monkeypatch, at, how):
        if how == "kill":
            with pytest.raises(Killed):
                prune("run", *options, "--out", "stopped")
        else:
            assert prune("run", *options, "--out", "stopped").code == 75
    assert not Path("stopped/ticket.vtkt").exists()
    again = ("--resume", "stopped", "--quiet") if at == 4 else (*options, "--out", "stopped")
    assert prune("run", *again).code == 0
    for name in COMPARED:
        assert Path("stopped", name).read_bytes() == Path("alone", name).read_bytes(), name


def test_a_loss_that_is_not_finite_ends_in_one_line_and_keeps_the_checkpoint(
    prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = MatchingObjective.__call__

    def call(self: MatchingObjective, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> torch.Tensor:
        return losses(self, model, batch, clock) * (float("nan") if clock.step == 5 else 1.0)

    monkeypatch.setattr(MatchingObjective, "__call__", call)
    said = prune("run", *FAST, "--out", "run")
    assert said.code == 1
    assert "the loss is nan at step" in said.err
    assert list(Path("run/checkpoints").glob("step-*.pt"))
