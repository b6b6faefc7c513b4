"""The updates of the training loop against arithmetic done by hand."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.linear_trainings import CPU, LR, POINTS, SAMPLES, TARGETS, line, squared, train, weights
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Clock


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


def test_bf16_gives_nearly_the_loss_of_fp32() -> None:
    losses = [train(line(), plan={"precision": precision}).metrics["loss"] for precision in ("fp32", "bf16", "auto")]
    assert losses[0] == losses[2] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


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
