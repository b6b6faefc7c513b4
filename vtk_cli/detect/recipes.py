"""Trainings under a name (`--recipe`): what they set the options of `vtk detect train` to.

`paper` and `paper150` are the published training of ViDT and ViDT+ (arXiv 2110.03921, Section 4.1; arXiv 2204.07962):
AdamW at 1e-4 for everything, a cosine by epochs, 16 images an update, DETR's multi-scale augmentation. `finetune` goes
on from a detector's weights with new classifiers. `modern` trains at one square size with stronger augmentation, bf16
and averaged weights. `digits` is for the embedded scenes and `vidt-micro`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Recipe = Mapping[str, Any]
"""Field of `TrainOptions` -> value."""

_PAPER: Recipe = {
    "seed": 42,
    "batch_size": 16,
    "accumulate": 1,
    "augment": "paper",
    "resize": "short",
    "size": 800,
    "mosaic": 0.0,
    "mixup": 0.0,
    "epochs": 50,
    "lr": 1e-4,
    "min_lr": 1e-7,
    "schedule_on": "epochs",
    "warmup_steps": 0,
    "weight_decay": 1e-4,
    "decay_of": "paper",
    "clip_norm": 0.1,
    "iou_target_grad": True,
    "precision": "fp32",
}

_FINETUNE: Recipe = {**_PAPER, "seed": 0, "epochs": 24, "reset_head": True, "iou_target_grad": False}

_MODERN: Recipe = {
    **_PAPER,
    "seed": 0,
    "augment": "modern",
    "resize": "stretch",
    "size": 640,
    "mosaic": 0.5,
    "mixup": 0.3,
    "plain_epochs": 0.1,
    "schedule_on": "updates",
    "warmup_steps": 1000,
    "ema_decay": 0.9999,
    "iou_target_grad": False,
    "precision": "bf16",
}

_DIGITS: Recipe = {
    "batch_size": 16,
    "augment": "none",
    "resize": "short",
    "size": 128,
    "mosaic": 0.0,
    "mixup": 0.0,
    "epochs": 36,
    "evaluate_epochs": 6,
    "lr": 1e-3,
    "min_lr": 1e-5,
    "schedule_on": "updates",
    "warmup_steps": 50,
    "weight_decay": 1e-4,
    "decay_of": "matrices",
    "clip_norm": 1.0,
    "iou_target_grad": False,
    "precision": "fp32",
}

_RECIPES: dict[str, Recipe] = {
    "digits": _DIGITS,
    "paper": _PAPER,
    "paper150": {**_PAPER, "epochs": 150},
    "finetune": _FINETUNE,
    "modern": _MODERN,
}
RECIPES: Mapping[str, Recipe] = MappingProxyType({name: MappingProxyType(recipe) for name, recipe in _RECIPES.items()})

_SOURCES = {
    "digits": "the embedded scenes, for vidt-micro",
    "paper": "ViDT and ViDT+ in 50 epochs, arXiv 2110.03921 and 2204.07962",
    "paper150": "ViDT+ in 150 epochs, arXiv 2204.07962",
    "finetune": "one's own images, from a detector's weights",
    "modern": "one square size, mosaic and mixup, averaged weights, bf16",
}


def recipe_source(name: str) -> str:
    """What the recipe is after: a paper, or the data it is for."""
    return _SOURCES[name]
