"""What moves the weights: which of them decay, the optimiser, and the schedule of its learning rate."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers
from torch import nn

from vtk_cli.errors import UserError, nearest
from vtk_cli.video_pretrain.update_options import Schedule


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters in two groups: matrices and kernels, which decay, and vectors, which do not."""
    trained = [one for module in modules for one in module.parameters() if one.requires_grad]
    unique = list({id(one): one for one in trained}.values())
    groups: list[dict[str, Any]] = [
        {"params": [one for one in unique if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in unique if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    groups: list[dict[str, Any]], name: str, *, lr: float, momentum: float, amsgrad: bool
) -> torch.optim.Optimizer:
    """timm's optimiser `name` over `groups`; `sgd` has Nesterov's momentum.

    Raises:
        UserError: timm knows no such optimiser, it needs another package, or it knows no AMSGrad.
    """
    try:
        get_optimizer_info(name.lower().rpartition("_")[2])
    except ValueError as error:
        fix = nearest(name, ["lars", *list_optimizers()]) or "e.g. sgd, lars, adamw"
        raise UserError(f"no optimiser {name!r}", "--optimizer", fix) from error
    given: dict[str, Any] = {"amsgrad": True} if amsgrad else {}
    if (
        "fused"
        in inspect.signature(get_optimizer_class(name.lower().rpartition("_")[2], bind_defaults=False)).parameters
    ):
        given["fused"] = True
    try:
        made: torch.optim.Optimizer = create_optimizer_v2(groups, name, lr=lr, momentum=momentum, **given)
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        what = f"{name} cannot be made ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        raise UserError(what, "--optimizer", "choose another, or leave out --amsgrad") from error
    return made


@dataclass
class Rate:
    """The learning rate of every update: a linear rise, then a cosine, steps or a plain; the engine's `Scheduler`.

    The rise is part of the whole, as in PySlowFast (arXiv 2104.14558): the cosine starts with the training, and the
    rise ends on it. While MoCo's queue fills the rate is 0, and nothing decays.

    Args:
        optimizer: whose rate it is.
        schedule: after the rise.
        lr: the highest rate.
        warmup_lr: at the start of the rise.
        min_lr: at the end of a cosine.
        updates_per_epoch: to count in epochs.
        epochs: of the whole training.
        warmup: epochs of the rise.
        milestones: epochs at which `steps` takes a tenth.
        idle: updates at first in which nothing is to move.
    """

    optimizer: torch.optim.Optimizer
    schedule: Schedule
    lr: float
    warmup_lr: float
    min_lr: float
    updates_per_epoch: int
    epochs: int
    warmup: float = 0.0
    milestones: tuple[int, ...] = ()
    idle: int = 0
    _made: int = 0
    _decays: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.warmup >= self.epochs:
            what = f"{self.warmup:g} epochs of warm-up leave nothing of {self.epochs}"
            raise UserError(what, "--warmup", "shorten it, or train longer with --epochs")
        self._decays = [float(group.get("weight_decay", 0.0)) for group in self.optimizer.param_groups]
        self._set()

    def step(self, epoch: int) -> None:
        """Epochs change nothing: every update has its rate."""

    def step_update(self, num_updates: int) -> None:
        """So many updates are made."""
        self._made = num_updates
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"updates": self._made}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.step_update(int(state_dict["updates"]))

    def at(self, updates: int) -> float:
        """The rate after so many updates, the idle ones aside."""
        epoch = updates / self.updates_per_epoch
        if epoch < self.warmup:
            return self.warmup_lr + (self._after(self.warmup) - self.warmup_lr) * epoch / self.warmup
        return self._after(epoch)

    def _after(self, epoch: float) -> float:
        if self.schedule == "cosine":
            share = min(1.0, epoch / self.epochs)
            return self.min_lr + (self.lr - self.min_lr) / 2 * (1 + math.cos(math.pi * share))
        passed = sum(epoch >= milestone for milestone in self.milestones) if self.schedule == "steps" else 0
        return float(self.lr * 0.1**passed)

    def _set(self) -> None:
        is_idle = self._made < self.idle
        for group, decay in zip(self.optimizer.param_groups, self._decays, strict=True):
            group["lr"] = 0.0 if is_idle else self.at(self._made)
            group["weight_decay"] = 0.0 if is_idle else decay
