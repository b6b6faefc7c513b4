"""A training that is stopped by a signal and started again ends with the very same weights, whatever it trains."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.video_pretrain.tiny_runs import CPU, SSL, SUPERVISED, Call
from vtk_cli.engine.update import Updater
from vtk_cli.errors import ExitCode
from vtk_cli.models.names import file_metadata

FAST = ["--epochs", "2", "--batch-size", "8", *CPU]


COMMANDS = {
    "simclr": (["run", "CLIPS", *SSL, *FAST], 5),
    "moco": (["run", "CLIPS", *SSL, *FAST, "--method", "moco", "--queue", "48", "--head-dim", "8"], 2),
    "byol": (["run", "CLIPS", *SSL, *FAST, "--method", "byol", "--predictor-width", "16", "--accumulate", "2"], 2),
    "swav": (["run", "CLIPS", *SSL, *FAST, "--method", "swav", "--prototypes", "8"], 4),
    "supervised": (["run", "CLIPS", *SUPERVISED, "--time-perm", "sample", "--ema-decay", "0.9"], 5),
    "finetune": (["eval", "RUN", "CLIPS", "--protocol", "finetune", *FAST, "--dropout", "0.5"], 2),
    "linear": (
        ["eval", "RUN", "--protocol", "linear", "--probe", "sgd", "--recipe", "linear", "--warmup", "1", *FAST],
        5,
    ),
}
"""By what is trained: the command, and the update at which the signal comes."""


@pytest.mark.parametrize(
    "what",
    [
        "simclr",
        "supervised",
        "finetune",
        "linear",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("moco", "byol", "swav")),
    ],
)
def test_a_training_that_is_stopped_ends_with_the_very_same_weights(
    finished: Path, clips: Path, run: Call, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    (command, at), update, made = COMMANDS[what], Updater.__call__, 0

    def stopping(*arguments: Any) -> None:
        nonlocal made
        made += 1
        if made == at:
            signal.raise_signal(signal.SIGTERM)
        update(*arguments)

    places = {"CLIPS": clips, "RUN": finished}
    command = [str(places.get(word, word)) for word in command]
    code, _, err = run(*command, "--out", "whole")
    assert code == ExitCode.DONE, err
    with monkeypatch.context() as patch:
        patch.setattr(Updater, "__call__", stopping)
        code, _, err = run(*command, "--out", "stopped")
    assert code == ExitCode.PREEMPTED, err
    code, _, err = run(*command, "--out", "stopped")
    assert code == ExitCode.DONE, err
    for file in ("model.safetensors", "best.safetensors"):
        one, other = (Path(name) / file for name in ("whole", "stopped"))
        assert file_metadata(one) == file_metadata(other)
        weights = load_file(one), load_file(other)
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
