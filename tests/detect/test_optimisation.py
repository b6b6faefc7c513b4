"""The learning rate against its closed form, and which parameters decay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.network import build_detector
from vtk_cli.detect.optimisation import CosineRate, build_optimizer, parameter_groups


def rate(**more) -> CosineRate:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    given = {"lr": 1e-4, "min_lr": 1e-7, "epochs": 50, "updates": 500, **more}
    return CosineRate(optimizer, **given)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1e-4), (1, 9.9901e-5), (25, 5.005e-5), (49, 1.9856e-7)])
def test_the_published_schedule_by_epochs(epoch, expected):
    schedule = rate()
    schedule.step(epoch)
    assert schedule.rate == pytest.approx(expected, rel=1e-4)
    assert schedule.optimizer.param_groups[0]["lr"] == schedule.rate


def test_by_epochs_updates_change_nothing():
    schedule = rate()
    schedule.step(7)
    before = schedule.rate
    schedule.step_update(77)
    assert schedule.rate == before


def test_by_updates_it_rises_in_a_line_and_falls_as_a_cosine_to_its_end():
    schedule = rate(on_updates=True, warmup=100, lr=1.0, min_lr=0.01)
    for made, expected in ((0, 0.01), (49, 0.5), (99, 1.0), (100, 1.0), (300, 0.505), (500, 0.01)):
        schedule.step_update(made)
        assert schedule.rate == pytest.approx(expected)
    schedule.step_update(200)
    assert schedule.rate == pytest.approx(0.01 + 0.99 / 2 * (1 + math.cos(math.pi / 4)))


def test_it_goes_on_from_its_state():
    schedule, other = rate(on_updates=True, warmup=3), rate(on_updates=True, warmup=3)
    schedule.step(2)
    schedule.step_update(21)
    other.load_state_dict(schedule.state_dict())
    assert other.rate == schedule.rate
    assert other.optimizer.param_groups[0]["lr"] == schedule.rate


def names_of(network: nn.Module, group: dict) -> set[str]:
    chosen = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in network.named_parameters() if id(parameter) in chosen}


def test_as_published_all_decays_but_the_backbones_vectors_and_tokens():
    network = build_detector(detector_config("vidt-micro", 3))
    decayed, spared = (names_of(network, group) for group in parameter_groups(network, 1e-4, "paper"))
    assert {"backbone.det_token", "backbone.det_pos_embed", "backbone.patch_embed.norm.weight"} <= spared
    assert {"tgt_proj.0.bias", "decoder.0.norm1.weight", "heads.class_embed.0.bias"} <= decayed
    tables = {name for name, _ in network.named_parameters() if name.endswith("relative_position_bias_table")}
    assert tables <= decayed
    assert decayed | spared == {name for name, _ in network.named_parameters()}
    assert not decayed & spared


def test_of_matrices_no_vector_decays():
    network = build_detector(detector_config("vidt-plus-micro", 3))
    groups = parameter_groups(network, 1e-4, "matrices")
    decayed = names_of(network, groups[0])
    assert all(parameter.ndim > 1 for name, parameter in network.named_parameters() if name in decayed)
    assert "backbone.det_token" not in decayed
    assert [group["weight_decay"] for group in groups] == [1e-4, 0.0]


def test_frozen_parameters_are_in_no_group():
    network = build_detector(detector_config("vidt-micro", 3, aux=False))
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert not frozen & {name for group in parameter_groups(network, 0.0, "paper") for name in names_of(network, group)}
    assert build_optimizer(parameter_groups(network, 0.0, "paper"), 1e-3).param_groups[0]["lr"] == 1e-3
