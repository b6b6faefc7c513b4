"""Trainings of a line on twenty points, which the tests of the loop share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.engine.batches import Batches, TensorBatches
from vtk_cli.engine.loop import Clock, FitResult, Plan, fit

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
