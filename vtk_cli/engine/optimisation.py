"""What moves the weights: parameter groups, the optimiser, the schedule of its learning rate. All three are timm's."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers
from timm.optim import param_groups_layer_decay as layer_decay_groups
from timm.optim import param_groups_weight_decay as weight_decay_groups
from timm.scheduler import create_scheduler_v2
from torch import nn

from vtk_cli.engine.loop import Scheduler
from vtk_cli.errors import UserError, nearest

ParameterGroup = dict[str, Any]
"""A group as optimisers take it: `params`, `weight_decay`, and with layer decay `lr_scale`."""

_FALLING = ("cosine", "tanh", "poly")
"""Schedules that fall until their end: they can start where the warm-up ends, and stay low for some epochs more."""
SCHEDULES = (*_FALLING, "step", "multistep", "constant", "none", "wsd", "rsqrt")
"""timm's names but for `plateau`, which needs a measurement after every epoch."""


@dataclass(frozen=True)
class LearningRates:
    """The learning rate at its highest, at the start of the warm-up, and at the end."""

    lr: float
    warmup_lr: float = 0.0
    min_lr: float = 0.0

    def scaled(self, images_per_update: int, base_size: int | None) -> LearningRates:
        """All three times `images_per_update / base_size`, as they are meant for `base_size` images an update.

        Args:
            images_per_update: batch size over all processes, times the batches that make an update.
            base_size: None leaves them.
        """
        factor = 1.0 if base_size is None else images_per_update / base_size
        return LearningRates(self.lr * factor, self.warmup_lr * factor, self.min_lr * factor)


def parameter_groups(
    model: nn.Module, network: nn.Module, *, weight_decay: float, layer_decay: float | None = None
) -> list[ParameterGroup]:
    """The parameters of `model`, grouped by weight decay and, with layer decay, by depth.

    No decay for vectors (biases, normalisation), for what the network lists in `no_weight_decay` (position embeddings,
    class token), nor for a mask token. What `model` has besides the network learns at the full rate, as the network's
    classifier does.

    Args:
        model: the network, or the module around it that also has a mask token or a point head.
        network: the timm network in `model`.
        weight_decay: of matrices.
        layer_decay: a layer's rate over that of the layer above it (arXiv 2106.08254, BEiT); None: one rate.
    """
    spared: set[str] = getattr(network, "no_weight_decay", set)()
    groups: list[ParameterGroup]
    if layer_decay is None:
        groups = weight_decay_groups(network, weight_decay, no_weight_decay_list=spared)
    else:
        groups = layer_decay_groups(network, weight_decay, no_weight_decay_list=spared, layer_decay=layer_decay)
    known = {id(parameter) for parameter in network.parameters()}
    beside = [one for one in model.parameters() if one.requires_grad and id(one) not in known]
    scale = {} if layer_decay is None else {"lr_scale": 1.0}
    for parameters, decay in (
        ([one for one in beside if one.ndim == 2], weight_decay),  # the point head's matrix; a mask token is (1, 1, D)
        ([one for one in beside if one.ndim != 2], 0.0),
    ):
        if parameters:
            groups.append({"params": parameters, "weight_decay": decay, **scale})
    return groups


def build_optimizer(
    groups: Sequence[ParameterGroup],
    name: str,
    *,
    lr: float,
    momentum: float = 0.9,
    eps: float | None = None,
    betas: tuple[float, ...] = (),
) -> torch.optim.Optimizer:
    """timm's optimiser `name` over `groups`.

    Args:
        groups: of `parameter_groups`.
        name: any of timm's: `adamw`, `lamb`, `sgd` (with Nesterov's momentum), `lookahead_adamw` ...
        lr: the highest learning rate.
        momentum: for those that have one.
        eps, betas: for those that have them; empty for their own defaults.

    Raises:
        UserError: timm knows no such optimiser, or it needs a package that is not here or other arguments.
    """
    try:
        get_optimizer_info(name.lower().rpartition("_")[2])
    except ValueError as error:
        fix = nearest(name, list_optimizers()) or "e.g. adamw, lamb, sgd"
        raise UserError(f"timm has no optimiser {name!r}", "--optimizer", fix) from error
    given: dict[str, Any] = {"eps": eps, "betas": betas or None}
    try:
        # torch's own optimisers have one kernel for a whole step, on CPUs as well.
        made = get_optimizer_class(name.lower().rpartition("_")[2], bind_defaults=False)
        given["fused"] = True if "fused" in inspect.signature(made).parameters else None
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            list(groups),
            name,
            lr=lr,
            momentum=momentum,
            **{key: value for key, value in given.items() if value is not None},
        )
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        what = f"{name} cannot be made ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        raise UserError(what, "--optimizer", "choose another, or other --betas and --opt-eps") from error
    return optimizer


def build_schedule(
    optimizer: torch.optim.Optimizer,
    name: str,
    *,
    rates: LearningRates,
    epochs: int,
    updates_per_epoch: int,
    on_updates: bool,
    warmup_epochs: float = 0.0,
    cooldown_epochs: int = 0,
) -> Scheduler:
    """timm's schedule `name` over a whole training, warm-up and cool-down included.

    By updates, a falling schedule starts where the warm-up ends, so that the rate reaches its highest (MAE). By epochs
    it starts with the training, and the warm-up covers its beginning (timm, DeiT, ResNet strikes back). `step` takes a
    tenth after every 30 % of the training, `multistep` after 50 % and 75 %, `poly` falls in a line, `wsd` and `rsqrt`
    fall in the last fifth; `constant` and `none` stay.

    Args:
        optimizer: its groups' `lr` is the highest rate.
        name: one of `SCHEDULES`.
        rates: the rates at both ends.
        epochs: of the training.
        updates_per_epoch: updates, not batches.
        on_updates: the rate changes with every update; otherwise with every epoch.
        warmup_epochs: the rate rises in a line for so long.
        cooldown_epochs: at the end, with the lowest rate.

    Raises:
        UserError: no such schedule; warm-up and cool-down leave it no time; it has no lowest rate to cool down at.
    """
    if name not in SCHEDULES:
        fix = nearest(name, SCHEDULES) or f"choose from {', '.join(SCHEDULES)}"
        raise UserError(f"no schedule {name!r}", "--schedule", fix)
    if cooldown_epochs and name not in _FALLING:
        raise UserError(f"the schedule {name} has no cool-down", "--cooldown-epochs", f"use {', '.join(_FALLING)}")
    ticks = updates_per_epoch if on_updates else 1  # timm counts either; here one of its "epochs" is one of those
    total, warm = (epochs - cooldown_epochs) * ticks, round(warmup_epochs * ticks)
    if warm >= total:
        what = f"{warmup_epochs:g} epochs of warm-up and {cooldown_epochs} of cool-down leave nothing of {epochs}"
        raise UserError(what, "--warmup", "shorten them, or train longer with --epochs")
    starts_after = on_updates and name in _FALLING
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            "constant" if name == "none" else name,
            num_epochs=total - warm if starts_after else total,
            decay_epochs=0.2 if name in {"wsd", "rsqrt"} else 0.3 * total,
            decay_milestones=[total // 2 + 1, total * 3 // 4 + 1],  # timm looks one tick ahead
            decay_rate=1.0 if name == "poly" else 0.1,
            min_lr=rates.min_lr,
            warmup_lr=rates.warmup_lr,
            warmup_epochs=warm,
            warmup_prefix=starts_after,
            step_on_epochs=not on_updates,
            updates_per_epoch=1,
        )
    except ValueError as error:
        raise UserError(f"the schedule {name} cannot be made ({error})", "--schedule", "train longer") from error
    return cast("Scheduler", scheduler)
