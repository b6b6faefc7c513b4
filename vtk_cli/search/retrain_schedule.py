"""The learning rate with which GeNAS re-trains its networks: it falls in a line, faster at first than at the end.

Source: the released code of arXiv 2305.08611.
"""

from __future__ import annotations

from typing import Any

import torch

TAIL = 5
"""The last epochs, in which the rate falls from a fifth of what an epoch before them takes off."""


class LinearTail:
    """Over E epochs: lr (E - 5 - e) / (E - 5) in epoch e < E - 5, then lr (E - e) / (5 (E - 5)).

    The first epochs of the warm-up are multiplied by (e + 1) / warm-up. A training of five epochs or fewer keeps one
    epoch before the tail.

    Args:
        optimizer: its groups' rates are the highest ones.
        epochs: E.
        warmup: epochs of warm-up.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, epochs: int, warmup: int) -> None:
        self._optimizer, self._epochs, self._warmup = optimizer, epochs, warmup
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.step(0)

    def factor(self, epoch: int) -> float:
        """The rate of an epoch over the highest."""
        tail = min(TAIL, self._epochs - 1)
        before = self._epochs - tail
        left = self._epochs - epoch
        falling = (before - epoch) / before if epoch < before else left / (TAIL * before)
        return falling * min(1.0, (epoch + 1) / max(1, self._warmup))

    def step(self, epoch: int) -> None:
        """After so many epochs."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.factor(min(epoch, self._epochs))

    def step_update(self, num_updates: int) -> None:
        """Nothing: the rate stays for a whole epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the epoch says all."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing."""
