"""The training loop against arithmetic done by hand."""

from __future__ import annotations

import math
import multiprocessing
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from vtk_cli.console import Console
from vtk_cli.engine.batches import Batches, LoaderBatches, TensorBatches
from vtk_cli.engine.checkpoint import latest_checkpoint
from vtk_cli.engine.loop import Clock, FitResult, Plan, fit
from vtk_cli.errors import JobError, UserError

CPU = torch.device("cpu")
QUIET = Console(quiet=True)
SAMPLES, LR = 20, 0.1
POINTS = torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(1))


def line() -> nn.Linear:
    model = nn.Linear(3, 1)
    nn.init.constant_(model.weight, 0.5)
    nn.init.constant_(model.bias, -0.2)
    return model


def squared(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
    _, points, targets = batch
    return F.mse_loss(model(points).squeeze(1), targets)


def train(model: nn.Module, loss: Any = squared, batches: Batches | None = None, **options: Any) -> FitResult:
    """Plain gradient descent of rate 0.1 on 20 points, 8 a batch (8, 8, 4), unless told otherwise."""
    plan = Plan(**{"epochs": 1} | options.pop("plan", {}))
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(model.parameters(), LR)
    batches = batches or TensorBatches(POINTS, TARGETS, batch_size=8, seed=0)
    defaults = {"evaluate": None, "checkpoints": None, "metrics": None, "console": QUIET, "seed": 0, "device": CPU}
    return fit(model, loss, batches, optimizer, plan=plan, **defaults | options)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_loop_is_gradient_descent() -> None:
    model, by_hand = line(), line()
    result = train(model, plan={"epochs": 3})
    batches = TensorBatches(POINTS, TARGETS, batch_size=8, seed=0)
    losses = []
    for epoch in range(3):
        for _, points, targets in batches.epoch(epoch):
            by_hand.zero_grad()
            loss = F.mse_loss(by_hand(points).squeeze(1), targets)
            loss.backward()
            losses.append(loss.item() * len(points))
            with torch.no_grad():
                for parameter in by_hand.parameters():
                    parameter.add_(parameter.grad, alpha=-LR)
    assert torch.equal(weights(model), weights(by_hand))
    assert (result.model, result.ema, result.steps) == (model, None, 9)
    assert [row["loss"] for row in result.history] == pytest.approx(
        [sum(losses[first : first + 3]) / SAMPLES for first in (0, 3, 6)], rel=1e-6
    )
    assert [(row["epoch"], row["step"]) for row in result.history] == [(1, 3), (2, 6), (3, 9)]
    assert result.metrics == result.history[-1]


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_accumulated_batches_make_the_update_of_the_batch_of_all_their_samples(accumulate: int) -> None:
    """20 points in batches of 4, and of 4 * accumulate; the last update has fewer batches, or a smaller one."""
    small, large = line(), line()
    train(small, batches=TensorBatches(POINTS, TARGETS, batch_size=4, seed=0), plan={"accumulate": accumulate})
    train(large, batches=TensorBatches(POINTS, TARGETS, batch_size=4 * accumulate, seed=0))
    torch.testing.assert_close(weights(small), weights(large), rtol=1e-6, atol=1e-7)


def test_accumulated_batches_of_unequal_size_are_weighted_by_their_samples() -> None:
    """Batches of 8, 8 and 4 points in one update are all 20 points at once."""
    unequal, whole = line(), line()
    result = train(unequal, plan={"accumulate": 3})
    train(whole, batches=TensorBatches(POINTS, TARGETS, batch_size=20, seed=0))
    torch.testing.assert_close(weights(unequal), weights(whole), rtol=1e-6, atol=1e-7)
    assert result.steps == 1


def test_an_iterator_of_losses_has_the_gradient_of_their_sum() -> None:
    def parts(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Iterator[Tensor]:
        yield squared(model, batch, clock)
        yield model(batch[1]).abs().mean()

    def whole(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        return torch.stack(list(parts(model, batch, clock))).sum()

    one, other = line(), line()
    results = [train(one, parts, plan={"accumulate": 2}), train(other, whole, plan={"accumulate": 2})]
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-6, atol=1e-7)
    assert results[0].metrics["loss"] == pytest.approx(results[1].metrics["loss"], rel=1e-6)


def test_the_graph_of_an_iterators_first_loss_is_gone_when_the_second_is_built() -> None:
    alive = []

    def parts(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Iterator[Tensor]:
        def first() -> tuple[Tensor, Any]:
            loss = squared(model, batch, clock)
            return loss, weakref.ref(loss)

        loss, reference = first()
        yield loss
        del loss
        alive.append(reference() is not None)
        yield squared(model, batch, clock)

    train(line(), parts)
    assert alive == [False] * 3


def test_averaged_weights_are_the_geometric_mean_of_all_weights_so_far() -> None:
    """With the loss sum(w) every step takes 0.1 off: w_k = w_0 - 0.1 k, and with decay d the average is
    d^n w_0 + (1 - d) sum_k d^(n - k) w_k."""
    model, decay, start = line(), 0.7, weights(line())

    def total(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        return sum(parameter.sum() for parameter in model.parameters())  # type: ignore[return-value]

    result = train(model, total, plan={"epochs": 2, "ema_decay": decay})
    moved = sum((1 - decay) * decay ** (6 - k) * -LR * k for k in range(1, 7))
    assert result.ema is not None
    torch.testing.assert_close(weights(result.ema), start + moved, rtol=0, atol=1e-6)
    torch.testing.assert_close(weights(model), start - 6 * LR, rtol=0, atol=1e-6)


def test_a_clipped_step_has_the_length_of_the_clip_norm_times_the_rate() -> None:
    model = line()
    before = weights(model)
    train(model, batches=TensorBatches(POINTS, TARGETS, batch_size=20, seed=0), plan={"clip_norm": 1e-3})
    assert (weights(model) - before).norm().item() == pytest.approx(LR * 1e-3, rel=1e-3)
    free = line()
    train(free, batches=TensorBatches(POINTS, TARGETS, batch_size=20, seed=0))
    assert (weights(free) - before).norm().item() > 10 * LR * 1e-3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_schedule_over_updates_gives_every_update_its_rate(accumulate: int) -> None:
    model = line()
    optimizer = torch.optim.SGD(model.parameters(), LR)
    scheduler = CosineLRScheduler(optimizer, t_initial=6, warmup_t=2, warmup_lr_init=0.01, t_in_epochs=False)
    expected = [scheduler._get_lr(step)[0] for step in range(7)]
    seen: dict[int, float] = {}

    def watching(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        seen[clock.step] = optimizer.param_groups[0]["lr"]
        return squared(model, batch, clock)

    result = train(
        model, watching, optimizer=optimizer, scheduler=scheduler, plan={"epochs": 3, "accumulate": accumulate}
    )
    steps = 9 if accumulate == 1 else 6
    assert list(seen) == list(range(steps))
    assert [seen[step] for step in range(6)] == pytest.approx(expected[:6])
    assert result.history[0]["lr"] == pytest.approx(expected[3 if accumulate == 1 else 2])


def test_a_schedule_over_epochs_is_stepped_by_epochs() -> None:
    model = line()
    optimizer = torch.optim.SGD(model.parameters(), LR)
    scheduler = StepLRScheduler(optimizer, decay_t=2, decay_rate=0.1)
    result = train(model, optimizer=optimizer, scheduler=scheduler, plan={"epochs": 5})
    assert [row["lr"] for row in result.history] == pytest.approx([LR, LR / 10, LR / 10, LR / 100, LR / 100])


def test_the_clock_counts_and_its_seeds_are_all_different() -> None:
    def clocks(seed: int) -> list[Clock]:
        seen: list[Clock] = []

        def watching(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
            seen.append(clock)
            return squared(model, batch, clock)

        train(line(), watching, seed=seed, plan={"epochs": 2, "accumulate": 2})
        return seen

    seen = clocks(0)
    assert [(clock.epoch, clock.step) for clock in seen] == [(0, 0), (0, 0), (0, 1), (1, 2), (1, 2), (1, 3)]
    assert clocks(0) == seen
    assert len({clock.seed for clock in seen + clocks(1)}) == 12


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_evaluation_comes_as_planned_and_after_the_last_epoch(every: int, epochs: list[int]) -> None:
    result = train(line(), evaluate=lambda model: {"accuracy": 0.5}, plan={"epochs": 5, "evaluate_epochs": every})
    assert [row["epoch"] for row in result.history if "accuracy" in row] == epochs


def test_the_model_and_the_averaged_one_are_evaluated_in_eval_mode() -> None:
    seen = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append((model, model.training))
        return {"first": weights(model)[0].item(), "drawn": torch.rand(()).item()}

    modes = []

    def watching(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        modes.append(model.training)
        return squared(model, batch, clock)

    model = line()
    result = train(model, watching, evaluate=evaluate, plan={"epochs": 2, "ema_decay": 0.5})
    assert seen == [(model, False), (result.ema, False)] * 2
    assert result.ema is not None
    assert result.metrics["first"] == weights(model)[0].item()
    assert result.metrics["ema_first"] == weights(result.ema)[0].item() != weights(model)[0].item()
    assert [row["drawn"] for row in result.history] == [row["ema_drawn"] for row in result.history]
    result = train(model, watching, evaluate=evaluate, plan={"epochs": 2})
    assert seen[4:] == [(model, False)] * 2
    assert not any(name.startswith("ema_") for row in result.history for name in row)
    assert set(modes) == {True}
    assert not model.training


def test_what_an_evaluation_draws_does_not_change_the_training() -> None:
    def noisy(model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Tensor:
        return squared(model, (batch[0], batch[1] + torch.randn_like(batch[1]), batch[2]), clock)

    ends = []
    for draws in (0, 5):
        torch.manual_seed(3)
        model = line()
        train(model, noisy, evaluate=lambda model, draws=draws: {"x": torch.rand(draws).sum()}, plan={"epochs": 3})
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_an_evaluation_may_not_overwrite_the_loops_own_values() -> None:
    with pytest.raises(ValueError, match=r"\['loss'\]"):
        train(line(), evaluate=lambda model: {"loss": 1.0})


def test_bf16_gives_nearly_the_loss_of_fp32() -> None:
    losses = [train(line(), plan={"precision": precision}).metrics["loss"] for precision in ("fp32", "bf16", "auto")]
    assert losses[0] == losses[2] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


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
    assert f"the loss is {value} at step {first}, in the batch of samples {bad[0]};" in str(caught.value)
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
        with pytest.raises(JobError, match=f"^the loss of {name} at step 1, in the batch of samples"):
            train(line(), Branches(*factors), plan={"accumulate": accumulate})
    with pytest.raises(JobError, match=r"^the loss is inf at step 1"):
        train(line(), Branches(math.inf), plan={"accumulate": accumulate})  # fused: one loss for all branches


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


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, FitResult]:
    """A finished training and its checkpoints."""
    return tmp_path, train(line(), checkpoints=tmp_path, plan={"epochs": 2, "checkpoint_steps": 1, "ema_decay": 0.5})


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


def test_everything_in_a_batch_but_the_indices_goes_to_the_device() -> None:
    class Boxes:
        """Something with a `to` of its own."""

        def __init__(self) -> None:
            self.device: torch.device | None = None

        def to(self, device: torch.device) -> Boxes:
            self.device = device
            return self

    class One:
        steps_per_epoch = 1

        def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
            yield torch.arange(2), {"a": [POINTS[:2], (TARGETS[:2],)]}, Boxes(), "text"

    def check(model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:
        indices, tree, boxes, text = batch
        assert indices.device == CPU
        assert boxes.device == tree["a"][0].device == tree["a"][1][0].device == torch.device("meta")
        assert text == "text"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(line().to("meta"), check, batches=One(), device=torch.device("meta"))


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
