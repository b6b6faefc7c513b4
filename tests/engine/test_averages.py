"""The moving average of a network's state."""

from __future__ import annotations

import copy

import torch
from torch import nn

from vtk_cli.engine.averages import Averages, state_tensors


def shared() -> nn.ModuleDict:
    """A layer with two names, and buffers that are numbers, counts, and no part of the state."""
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict({"one": layer, "other": layer, "norm": nn.BatchNorm1d(2)})
    model.register_buffer("passing", torch.zeros(1), persistent=False)
    return model


def test_a_tensor_with_two_names_is_averaged_once() -> None:
    model = shared()
    averaged = copy.deepcopy(model)
    averages = Averages(state_tensors(averaged), 0.75)
    before = model["one"].weight.detach().clone()
    with torch.no_grad():
        model["one"].weight.add_(1)
        model["norm"].running_mean.add_(4)
        model["norm"].num_batches_tracked.add_(3)
        model.passing.add_(1)
    averages.update(state_tensors(model))
    torch.testing.assert_close(averaged["one"].weight, before + 0.25)
    torch.testing.assert_close(averaged["norm"].running_mean, torch.ones(2))
    assert averaged["norm"].num_batches_tracked == 3
    assert averaged.passing == 0


def test_the_average_approaches_the_weights_as_powers_of_the_decay() -> None:
    average = torch.zeros(3)
    averages = Averages([average], 0.9)
    for _ in range(20):
        averages.update([torch.ones(3)])
    torch.testing.assert_close(average, torch.full((3,), 1 - 0.9**20))
