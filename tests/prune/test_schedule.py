from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vtk_cli.prune.schedule import UpdateSchedule, factor_of, stretches


def test_cosine_falls_from_one_to_zero_over_the_run() -> None:
    factor = factor_of("cosine", 500)
    assert (factor(0), factor(250), factor(500)) == pytest.approx((1.0, 0.5, 0.0))


def test_the_published_schedule_falls_and_rises_every_twenty_steps() -> None:
    factor = factor_of("cosine-10", 500)
    values = [factor(step) for step in range(41)]
    assert values[0] == values[20] == values[40] == 1.0
    assert values[10] == pytest.approx(0.0)
    assert sum(values[:20]) / 20 == pytest.approx(0.5)


def test_it_is_torchs_cosine_annealing() -> None:
    optimizers = [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3) for _ in range(2)]
    ours = UpdateSchedule(optimizers[0], "cosine-10", 100)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[1], T_max=10)
    for step in range(35):
        for optimizer in optimizers:
            optimizer.step()
        ours.step_update(step + 1)
        theirs.step()
        assert optimizers[0].param_groups[0]["lr"] == pytest.approx(optimizers[1].param_groups[0]["lr"], abs=1e-9)


def test_it_starts_again_for_every_round_and_ends_at_zero() -> None:
    factor = factor_of("cosine", 17, restarts=2)  # three times five updates, and two that are left
    assert factor(0) == factor(5) == factor(10) == 1.0
    assert factor(4) < 0.2
    assert factor(15) == factor(16) == factor(17) == pytest.approx(0.0)


def test_constant_stays() -> None:
    assert {factor_of("constant", 5)(step) for step in range(9)} == {1.0}


def test_a_schedule_goes_on_from_its_state() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = UpdateSchedule(optimizer, "cosine", 10)
    for step in range(4):
        optimizer.step()
        schedule.step_update(step + 1)
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    again = UpdateSchedule(other, "cosine", 10)
    again.load_state_dict(schedule.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for one, mover in ((optimizer, schedule), (other, again)):
        one.step()
        mover.step_update(5)
    assert (
        optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
    )


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(500, 50, (10, 50)), (6, 3, (2, 3)), (510, 50, (15, 34)), (5, 50, (1, 5)), (300_000, 5_000, (60, 5_000))],
)
def test_stretches_make_exactly_the_steps_where_they_can(steps: int, every: int, expected: tuple[int, int]) -> None:
    assert stretches(steps, every) == expected


def test_stretches_of_a_prime_are_a_few_steps_more() -> None:
    count, length = stretches(503, 50)
    assert 503 <= count * length <= 503 + count
