"""LARS by its formula, which weights decay, and the learning rate of every update."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.optimisation import Rate, build_optimizer, parameter_groups

DECAY = 0.01


def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.Flatten(), nn.Linear(3, 4)).double()
    made(torch.randn(5, 2, 2, 2, 2, dtype=torch.float64)).pow(2).sum().backward()
    return made


def rate(**given: object) -> Rate:
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "weight_decay": DECAY}], lr=1.0)
    values = {"schedule": "cosine", "lr": 0.8, "warmup_lr": 0.1, "min_lr": 0.2, "updates_per_epoch": 10, "epochs": 8}
    return Rate(optimizer, **(values | given))  # type: ignore[arg-type]


def test_kernels_and_matrices_decay_and_vectors_do_not():
    made = network()
    decaying, spared = parameter_groups([made], DECAY)
    assert {tuple(weight.shape) for weight in decaying["params"]} == {(3, 2, 2, 2, 2), (4, 3)}
    assert len(spared["params"]) == 4
    assert (decaying["weight_decay"], spared["weight_decay"]) == (DECAY, 0.0)
    made.requires_grad_(requires_grad=False)
    assert parameter_groups([made], DECAY) == []


@pytest.mark.parametrize(("name", "nesterov"), [("lars", False), ("nlars", True)])
def test_lars_is_its_formula_over_three_steps(name, nesterov):
    """arXiv 1708.03888: g <- (g + wd w) 0.001 |w| / (|g| + wd |w|), but for vectors, which are SGD's."""
    made = network()
    weights = list(made.parameters())
    expected, speed = [weight.detach().clone() for weight in weights], [None] * len(weights)
    optimizer = build_optimizer(parameter_groups([made], DECAY), name, lr=0.3, momentum=0.9, amsgrad=False)
    for _ in range(3):
        for at, weight in enumerate(weights):
            g, w = weight.grad, expected[at]
            if w.ndim > 1:
                g = (g + DECAY * w) * 0.001 * w.norm() / (g.norm() + DECAY * w.norm() + 1e-8)
            speed[at] = g if speed[at] is None else 0.9 * speed[at] + g
            expected[at] = w - 0.3 * (g + 0.9 * speed[at] if nesterov else speed[at])
        optimizer.step()
    for found, right in zip(weights, expected, strict=True):
        torch.testing.assert_close(found.detach(), right)


def test_sgd_has_nesterovs_momentum_and_adam_may_have_amsgrad():
    groups = parameter_groups([network()], DECAY)
    assert build_optimizer(groups, "sgd", lr=0.1, momentum=0.9, amsgrad=False).param_groups[0]["nesterov"]
    assert build_optimizer(groups, "adamw", lr=0.1, momentum=0.9, amsgrad=True).param_groups[0]["amsgrad"]
    with pytest.raises(UserError, match="no optimiser 'adamv'; did you mean adam"):
        build_optimizer(groups, "adamv", lr=0.1, momentum=0.9, amsgrad=False)
    with pytest.raises(UserError, match="cannot be made"):
        build_optimizer(groups, "sgd", lr=0.1, momentum=0.9, amsgrad=True)


def test_the_rise_ends_on_the_cosine_that_started_with_the_training():
    made = rate(warmup=2.0)
    on_cosine = 0.2 + 0.3 * (1 + math.cos(math.pi * 2 / 8))
    assert made.at(0) == pytest.approx(0.1)
    assert made.at(10) == pytest.approx((0.1 + on_cosine) / 2)
    assert made.at(20) == pytest.approx(on_cosine)
    assert made.at(40) == pytest.approx(0.5)
    assert made.at(80) == pytest.approx(0.2)
    assert rate(schedule="constant").at(77) == 0.8


def test_steps_take_a_tenth_at_their_epochs():
    made = rate(schedule="steps", milestones=(2, 4))
    assert [round(made.at(update), 6) for update in (0, 19, 20, 39, 40, 79)] == [0.8, 0.8, 0.08, 0.08, 0.008, 0.008]


def test_nothing_moves_nor_decays_while_a_queue_fills():
    made = rate(idle=3)
    seen = []
    for update in range(5):
        made.step_update(update)
        group = made.optimizer.param_groups[0]
        seen.append((group["lr"] > 0, group["weight_decay"]))
    assert seen == [(False, 0.0)] * 3 + [(True, DECAY)] * 2


def test_a_schedule_goes_on_from_its_state():
    one, other = rate(), rate()
    one.step_update(33)
    other.load_state_dict(one.state_dict())
    assert other.optimizer.param_groups[0]["lr"] == one.optimizer.param_groups[0]["lr"] == one.at(33)


def test_a_rise_as_long_as_the_training_is_refused():
    with pytest.raises(UserError, match="8 epochs of warm-up leave nothing of 8"):
        rate(warmup=8.0)
