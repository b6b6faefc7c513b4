"""How long trainings are and how their learning rates change (arXiv 2303.15062, Section 4, and its code)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Shape = Callable[[int], float]
"""From updates made to the share of the highest learning rate, in [0, 1]."""

_FIRST = 0.01
"""The share of the learning rate that a linear warm-up starts from."""
_RISE, _START, _END = 0.3, 25.0, 1e4
"""One cycle: the share of it that rises; the highest rate over the first, and the first over the last."""
_COCO_IMAGES = 118_287
_PUBLISHED: dict[int, tuple[int, tuple[int, int], tuple[int, int]]] = {
    1: (10_000, (5_000, 8_000), (5_000, 10_000)),
    2: (25_000, (15_000, 20_000), (10_000, 20_000)),
    5: (30_000, (20_000, 25_000), (15_000, 25_000)),
    10: (45_000, (35_000, 40_000), (30_000, 40_000)),
    20: (120_000, (90_000, 110_000), (70_000, 100_000)),
    30: (160_000, (120_000, 150_000), (100_000, 130_000)),
    50: (270_000, (210_000, 250_000), (180_000, 240_000)),
}
"""Per cent of COCO's images -> the teacher's updates, where its rate falls, and the states for the rough masks."""
STATES = (1 / 2, 5 / 6)
"""When states are kept for the rough masks where nothing is published: shares of a training."""
_PASSES, _LEAST, _MOST = 75, 10_000, 270_000


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Args:
        updates: in all.
        falls: the updates after which the learning rate is a tenth of what it was.
        snapshots: shares of the training after which a state is kept.
    """

    updates: int
    falls: tuple[int, ...]
    snapshots: tuple[float, ...] = ()


def teacher_length(
    strong: int, weak: int, batch_size: int, updates: int | None, snapshots: tuple[float, ...]
) -> Length:
    """The training of a teacher: as published for that share of COCO, else 75 passes, within 10,000 to 270,000.

    Args:
        strong, weak: images of either kind.
        batch_size: of an update.
        updates: as the user wants it; None for the default.
        snapshots: the same; empty for the default.
    """
    share = 100 * strong / (strong + weak)
    published = next((row for per_cent, row in _PUBLISHED.items() if abs(share - per_cent) < 0.05 * per_cent), None)
    if updates is None and published is not None and abs(strong + weak - _COCO_IMAGES) < 0.02 * _COCO_IMAGES:
        total, falls, kept = published
        return Length(total, falls, snapshots or (kept[0] / total, kept[1] / total))
    total = min(_MOST, max(_LEAST, _PASSES * strong // batch_size)) if updates is None else updates
    return Length(total, _two_thirds(total), snapshots or STATES)


def student_length(updates: int) -> Length:
    """The training of a student: its rate falls after 21 and 25 of 27 parts, as published."""
    return Length(updates, (updates * 21 // 27, updates * 25 // 27))


def stepwise(length: Length, warmup: int) -> Shape:
    """A linear warm-up from a hundredth, then 1, a tenth after the first fall, a hundredth after the second.

    A warm-up that is longer than a third of the training is cut to that.
    """
    warmup = min(warmup, length.updates // 3)

    def share(updates: int) -> float:
        rise = 1.0 if updates >= warmup else _FIRST + (1 - _FIRST) * updates / warmup
        return rise * 0.1 ** sum(updates >= fall for fall in length.falls)

    return share


def one_cycle(updates: int) -> Shape:
    """A cosine from 1/25 up to 1 at three tenths, then down to 1/250,000 at the end (arXiv 1708.07120)."""
    top = max(1.0, _RISE * updates - 1)

    def share(made: int) -> float:
        if made <= top:
            return _between(1 / _START, 1.0, made / top)
        return _between(1.0, 1 / (_START * _END), (made - top) / max(1.0, updates - 1 - top))

    return share


def warm_cosine(updates: int, warmup: int, last: float) -> Shape:
    """A linear warm-up from `last`, then a cosine down to `last`."""
    warmup = min(warmup, updates // 3)

    def share(made: int) -> float:
        if made < warmup:
            return last + (1 - last) * made / warmup
        return _between(1.0, last, (made - warmup) / max(1, updates - warmup))

    return share


@dataclass
class Rate:
    """Sets the learning rate of an optimizer by updates, at once and as the engine's loop asks.

    Args:
        optimizer: whose rate it is.
        highest: the rate where the shape is 1.
        shape: of its course.
    """

    optimizer: torch.optim.Optimizer
    highest: float
    shape: Shape
    _made: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        self._set()

    def step(self, epoch: int) -> None:
        """Nothing changes by epochs."""

    def step_update(self, num_updates: int) -> None:
        """So many updates are made."""
        self._made[0] = num_updates
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"updates": self._made[0]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.step_update(state_dict["updates"])

    def _set(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.highest * self.shape(self._made[0])


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters in two groups: those that decay, and those of norms, which do not."""
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    spared = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, norms)
        for parameter in module.parameters(recurse=False)
    }
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in trained if id(each) not in spared], "weight_decay": weight_decay},
        {"params": [each for each in trained if id(each) in spared], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _two_thirds(total: int) -> tuple[int, int]:
    return total * 2 // 3, total * 5 // 6


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(1.0, max(0.0, share))))
