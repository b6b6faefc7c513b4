from __future__ import annotations

import pytest
import torch
from torch import nn

from vtk_cli.segment.training.schedules import (
    Length,
    Rate,
    one_cycle,
    parameter_groups,
    stepwise,
    student_length,
    teacher_length,
    warm_cosine,
)


def test_a_tenth_of_coco_has_the_published_training() -> None:
    length = teacher_length(11_829, 106_458, 16, None, ())
    assert (length.updates, length.falls) == (45_000, (35_000, 40_000))
    assert length.snapshots == (30 / 45, 40 / 45)


def test_other_data_has_75_passes_within_bounds() -> None:
    assert teacher_length(8000, 1000, 16, None, ()).updates == 37_500
    assert teacher_length(10, 1000, 16, None, ()).updates == 10_000
    assert teacher_length(10**6, 1000, 16, None, ()).updates == 270_000
    assert teacher_length(10, 1000, 16, 600, (0.4, 0.7)) == Length(600, (400, 500), (0.4, 0.7))


def test_the_students_rate_falls_where_it_is_published() -> None:
    assert student_length(270_000).falls == (210_000, 250_000)


def test_steps_warm_up_and_fall_by_tenths() -> None:
    share = stepwise(Length(900, (600, 800)), 100)
    assert [share(at) for at in (0, 50, 100, 599)] == pytest.approx([0.01, 0.505, 1, 1])
    assert [share(at) for at in (600, 799, 800)] == pytest.approx([0.1, 0.1, 0.01])


def test_one_cycle_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50, cycle_momentum=False)
    share = one_cycle(50)
    for made in range(50):
        assert 0.1 * share(made) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6), made
        optimizer.step()
        if made < 49:
            theirs.step()


def test_a_warm_cosine_ends_where_it_began() -> None:
    share = warm_cosine(100, 10, 0.01)
    assert [share(at) for at in (0, 10, 100)] == pytest.approx([0.01, 1, 0.01])
    assert share(55) == pytest.approx(0.505)


def test_a_rate_goes_on_where_it_was() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=9.0)
    rate = Rate(optimizer, 0.1, one_cycle(20))
    rate.step_update(7)
    found = optimizer.param_groups[0]["lr"]
    other = Rate(optimizer, 0.1, one_cycle(20))
    assert optimizer.param_groups[0]["lr"] != found
    other.load_state_dict(rate.state_dict())
    assert optimizer.param_groups[0]["lr"] == found


def test_norms_and_what_is_frozen_do_not_decay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    network[3].requires_grad_(False)
    decayed, spared = parameter_groups(network, 0.1)
    assert [tuple(each.shape) for each in decayed["params"]] == [(2, 1, 1, 1), (2,)]
    assert len(spared["params"]) == 4
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
