"""What moves the weights of a detector: AdamW, which parameters decay, and the cosine of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

DecayOf = Literal["paper", "matrices"]
_TOKENS = ("backbone.det_token", "backbone.det_pos_embed")


def parameter_groups(
    network: nn.Module,
    weight_decay: float,
    decay_of: DecayOf,
    *,
    slower: Collection[str] = (),
    share: float = 1.0,
) -> list[dict[str, Any]]:
    """The trained parameters in groups: those that decay, and the others; then the slower ones, likewise.

    Args:
        network: a detector.
        weight_decay: of those that decay.
        decay_of: `paper`: everything but the backbone's vectors, its DET tokens and their positions (arXiv 2110.03921);
            `matrices`: what has two dimensions or more, but for these tokens.
        slower: names of parameters with a lower learning rate, as DETR has it for the backbone (arXiv 2005.12872).
        share: theirs, as a share of the others' (`lr_scale` of a group).
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        vector = parameter.ndim < 2 and (decay_of == "matrices" or name.startswith("backbone."))
        slow, spared = share != 1 and name in slower, vector or name in _TOKENS
        groups.setdefault((slow, spared), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if spared else weight_decay,
            **({"lr_scale": share} if slow else {}),
        }
        for (slow, spared), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizer(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """AdamW with betas 0.9 and 0.999, and one kernel for a whole step."""
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True)


@dataclass
class CosineRate:
    """The learning rate: a linear rise, then a cosine to the end; set at once, and by the engine's loop.

    A group with an `lr_scale` gets that share of it.

    By epochs, lr(t) = min + (lr - min) / 2 * (1 + cos(pi t / T)) in epoch t of T, as published. By updates it is the
    same in updates, from the end of the rise on.

    Args:
        optimizer: whose rate it is.
        lr: the highest rate.
        min_lr: at the end.
        epochs: T.
        updates: of the whole training.
        warmup: updates of linear rise, from lr / warmup.
        on_updates: whether the rate changes with every update.
    """

    optimizer: torch.optim.Optimizer
    lr: float
    min_lr: float
    epochs: int
    updates: int
    warmup: int = 0
    on_updates: bool = False
    _at: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        self._set()

    def step(self, epoch: int) -> None:
        """So many epochs are finished."""
        self._at[0] = epoch
        self._set()

    def step_update(self, num_updates: int) -> None:
        """So many updates are made."""
        self._at[1] = num_updates
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"epoch": self._at[0], "updates": self._at[1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._at[:] = state_dict["epoch"], state_dict["updates"]
        self._set()

    @property
    def rate(self) -> float:
        """The learning rate now."""
        epoch, updates = self._at
        if updates < self.warmup:
            return self.lr * (updates + 1) / self.warmup
        share = epoch / self.epochs
        if self.on_updates:
            share = (updates - self.warmup) / max(1, self.updates - self.warmup)
        return self.min_lr + (self.lr - self.min_lr) / 2 * (1 + math.cos(math.pi * min(1.0, share)))

    def _set(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group.get("lr_scale", 1.0)
