"""Where the training loop stops: losses, plans and batches that are none."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from tests.engine.linear_trainings import POINTS, QUIET, TARGETS, line, squared, train
from vtk_cli.engine.batches import LoaderBatches, TensorBatches
from vtk_cli.engine.checkpoint import latest_checkpoint
from vtk_cli.engine.loop import Clock, Plan
from vtk_cli.errors import JobError, UserError


def test_fp16_on_the_cpu_is_refused() -> None:
    with pytest.raises(UserError, match="fp16 does not train on the CPU"):
        train(line(), plan={"precision": "fp16"})


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_finite_stops_the_run_naming_step_and_samples(
    value: float, accumulate: int, tmp_path: Path
) -> None:
    bad: list[list[int]] = []

    def spoiled(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        loss = squared(model, batch, clock)
        if clock.epoch == 1:
            bad.append(batch[0].tolist())
            return loss * value
        return loss

    model = line()
    with pytest.raises(JobError) as caught:
        train(model, spoiled, checkpoints=tmp_path, plan={"epochs": 2, "accumulate": accumulate, "checkpoint_steps": 1})
    first = 4 if accumulate == 1 else 3
    samples = ", ".join(f"sample {index}" for index in bad[0])
    assert f"the loss is {value} at step {first}, in the batch of {samples};" in str(caught.value)
    found = latest_checkpoint(tmp_path, QUIET)
    assert found is not None
    assert found[0] == first - 1
    assert all(tensor.isfinite().all() for tensor in found[1]["updater"]["model"].values())


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loss_of_named_branches_that_is_not_finite_names_them(accumulate: int) -> None:
    class Branches:
        branches = ("main", "sub", "points")

        def __init__(self, *factors: float) -> None:
            self.factors = factors

        def __call__(self, model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Iterator[Tensor]:
            for factor in self.factors:
                yield squared(model, batch, clock) * factor

    for factors, name in [
        ((1.0, math.nan, 1.0), "sub is nan"),
        ((math.inf, 1.0, 1.0), "main is inf"),
        ((math.inf, 1.0, math.nan), "main and points is nan"),
    ]:
        with pytest.raises(JobError, match=f"^the loss of {name} at step 1, in the batch of sample "):
            train(line(), Branches(*factors), plan={"accumulate": accumulate})
    with pytest.raises(JobError, match=r"^the loss is inf at step 1"):
        train(line(), Branches(math.inf), plan={"accumulate": accumulate})  # fused: one loss for all branches


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"accumulate": 0},
        {"clip_norm": 0.0},
        {"clip_norm": math.nan},
        {"ema_decay": 1.0},
        {"ema_decay": -0.1},
        {"checkpoint_steps": 0},
        {"evaluate_epochs": 0},
        {"log_steps": 0},
    ],
)
def test_a_plan_out_of_range_is_the_users_mistake(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(values))} must be"):
        Plan(**{"epochs": 1} | values)


def test_batches_that_end_before_their_epoch_are_an_error() -> None:
    class Short:
        steps_per_epoch = 4

        def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, ...]]:
            return TensorBatches(POINTS, TARGETS, batch_size=8, seed=0).epoch(epoch, start)

    with pytest.raises(ValueError, match="an epoch of 4 batches ended after 3"):
        train(line(), batches=Short())


def test_workers_have_ended_when_training_has(tmp_path: Path) -> None:
    batches = LoaderBatches(TensorDataset(POINTS, TARGETS), 8, seed=0, workers=2)
    train(line(), batches=batches, plan={"epochs": 2})
    assert multiprocessing.active_children() == []

    def fail(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(line(), fail, batches=batches)
    assert multiprocessing.active_children() == []
