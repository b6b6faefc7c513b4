"""What the training loop saves, and how it goes on from there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.linear_trainings import POINTS, QUIET, TARGETS, line, squared, train, weights
from vtk_cli.console import Console
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.checkpoint import latest_checkpoint
from vtk_cli.engine.loop import Clock, FitResult
from vtk_cli.errors import JobError, UserError


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, FitResult]:
    """A finished training and its checkpoints."""
    return tmp_path, train(line(), checkpoints=tmp_path, plan={"epochs": 2, "checkpoint_steps": 1, "ema_decay": 0.5})


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The loss sqrt(x) is 0 at x = 0, and its gradient infinite."""

    def spoiled(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        loss = squared(model, batch, clock)
        return loss if clock.step < 2 else (model(batch[1]) * 0).sum().sqrt()

    with pytest.raises(JobError, match="the weights are not finite after step 3"):
        train(line(), spoiled, checkpoints=tmp_path, plan={"checkpoint_steps": 1})
    found = latest_checkpoint(tmp_path, QUIET)
    assert found is not None
    assert found[0] == 2


def test_a_finished_training_comes_back_without_another_step(saved: tuple[Path, FitResult], tmp_path: Path) -> None:
    def never(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        raise AssertionError

    again = train(
        line(), never, checkpoints=saved[0], plan={"epochs": 2, "ema_decay": 0.5}, metrics=tmp_path / "m.jsonl"
    )
    assert torch.equal(weights(again.model), weights(saved[1].model))
    assert again.ema is not None
    assert saved[1].ema is not None
    assert torch.equal(weights(again.ema), weights(saved[1].ema))
    assert (again.steps, again.history) == (saved[1].steps, saved[1].history)
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 2


def test_from_the_checkpoint_before_a_damaged_one_the_end_is_the_same(
    saved: tuple[Path, FitResult], capsys: pytest.CaptureFixture[str]
) -> None:
    newest = max(saved[0].glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1])
    again = train(line(), checkpoints=saved[0], plan={"epochs": 2, "checkpoint_steps": 1, "ema_decay": 0.5})
    assert "damaged" in capsys.readouterr().err
    assert torch.equal(weights(again.model), weights(saved[1].model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": {"epochs": 2, "ema_decay": 0.5, "accumulate": 2}}, "with 1 batches an update, this one has 2"),
        (
            {"batches": TensorBatches(POINTS, TARGETS, batch_size=4, seed=0), "plan": {"epochs": 2, "ema_decay": 0.5}},
            "with 3 batches an epoch, this one has 5",
        ),
        ({"plan": {"epochs": 2}}, "another model or optimiser .*ema"),
        (
            {"model": nn.Linear(3, 2), "plan": {"epochs": 2, "ema_decay": 0.5}},
            "another model or optimiser .*size mismatch",
        ),
    ],
)
def test_the_checkpoint_of_another_training_is_refused(
    change: dict[str, Any], message: str, saved: tuple[Path, FitResult]
) -> None:
    with pytest.raises(UserError, match=message):
        train(**{"model": line()} | change, checkpoints=saved[0])


def test_a_longer_plan_goes_on_from_the_end_of_the_shorter_one(saved: tuple[Path, FitResult]) -> None:
    longer = train(line(), checkpoints=saved[0], plan={"epochs": 4, "ema_decay": 0.5})
    at_once = train(line(), plan={"epochs": 4, "ema_decay": 0.5})
    assert torch.equal(weights(longer.model), weights(at_once.model))


def test_saving_after_every_second_means_saving_when_the_time_has_come(tmp_path: Path) -> None:
    train(line(), checkpoints=tmp_path / "always", plan={"checkpoint_seconds": 0.0})
    train(line(), checkpoints=tmp_path / "end", plan={"checkpoint_seconds": 1e9})
    steps = {name: sorted(int(path.name[5:13]) for path in (tmp_path / name).iterdir()) for name in ("always", "end")}
    assert steps == {"always": [2, 3], "end": [3]}


def test_on_a_full_disk_training_fails_and_the_last_checkpoint_stays(tiny_disk: Path) -> None:
    class Growing(nn.Linear):
        """Its state grows until the disk is full."""

        def forward(self, points: Tensor) -> Tensor:
            self.register_buffer("history", torch.cat([self.history, torch.zeros(10_000)]))
            return super().forward(points)

    model = Growing(3, 1)
    model.register_buffer("history", torch.zeros(0))
    with pytest.raises(JobError, match="no space left"):
        train(model, checkpoints=tiny_disk, plan={"epochs": 9, "checkpoint_steps": 1})
    found = latest_checkpoint(tiny_disk, QUIET)
    assert found is not None
    assert found[0] >= 1


def test_progress_shows_the_loss_and_where_a_resumed_training_goes_on(
    saved: tuple[Path, FitResult], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtk_cli.engine.loop._SHOW_SECONDS", 0.0)
    monkeypatch.setattr("vtk_cli.console.PLAIN_INTERVAL_S", 0.0)
    train(line(), checkpoints=saved[0], plan={"epochs": 3, "ema_decay": 0.5}, console=Console(), description="lines")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "lines: going on after step 6 of 9"
    assert lines[1].startswith("lines: 1/3, about ")
    assert re.search(r", loss \S+, [\d.e+]+ images/s$", lines[1])


def test_the_speed_is_of_the_updates_alone(saved: tuple[Path, FitResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a batch of 2 takes 20 ms, the first one, which warms up, 200 ms, and an evaluation 300 ms."""
    hands = [0.0]
    monkeypatch.setattr("vtk_cli.engine.throughput.time", SimpleNamespace(monotonic=lambda: hands[0]))

    def slow(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        hands[0] += 0.02 if clock.step else 0.2
        return squared(model, batch, clock)

    def evaluate(model: nn.Module) -> dict[str, float]:
        hands[0] += 0.3
        return {}

    batches = TensorBatches(POINTS, TARGETS, batch_size=2, seed=0)
    result = train(line(), slow, batches, evaluate=evaluate, plan={"epochs": 2})
    assert result.images_per_second == pytest.approx(2 / 0.02)
    assert result.train_seconds == pytest.approx(0.2 + 19 * 0.02)
    done = train(line(), checkpoints=saved[0], plan={"epochs": 2, "ema_decay": 0.5})
    assert (done.images_per_second, done.train_seconds) == (None, 0.0)
