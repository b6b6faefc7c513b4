"""Trainings under a name (`--recipe`): what they set the options of `vtk segment run` to.

`paper` is the published training (arXiv 2303.15062, Section 4, and its code): SGD, a teacher at a learning rate of 0.05
and a student at 0.01, steps by tenths, images of 640 to 800 pixels. `light` is the light SOLOv2 for images of 352 to
512 pixels (arXiv 2003.10152). `small` is for data sets of some hundred images: AdamW and clipped gradients. `digits` is
for the embedded scenes and the micro network, whose batch norms learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Recipe = Mapping[str, Any]
"""Field of `SegmentOptions` -> value."""

_PAPER: Recipe = {
    "augment": "paper",
    "size": 800,
    "batch_size": 16,
    "optimizer": "sgd",
    "weight_decay": 1e-4,
    "schedule": "steps",
    "teacher_lr": 0.05,
    "teacher_warmup": 3000,
    "student_lr": 0.01,
    "student_warmup": 1000,
    "student_steps": 270_000,
    "student_start": "fresh",
    "clip_norm": None,
    "refiner": "resnet101",
    "precision": "fp32",
}
_LIGHT: Recipe = {
    **_PAPER,
    "size": 448,
    "teacher_lr": 0.02,
    "teacher_warmup": 1000,
    "student_warmup": 500,
    "clip_norm": 35.0,
}
_SMALL: Recipe = {
    **_PAPER,
    "optimizer": "adamw",
    "weight_decay": 1e-2,
    "teacher_lr": 1e-4,
    "teacher_warmup": 500,
    "student_lr": 1e-4,
    "student_warmup": 500,
    "student_steps": 20_000,
    "refine_steps": 20_000,
    "clip_norm": 35.0,
}
_DIGITS: Recipe = {
    "augment": "digits",
    "size": 128,
    "batch_size": 8,
    "optimizer": "adamw",
    "weight_decay": 1e-3,
    "schedule": "one-cycle",
    "teacher_steps": 500,
    "teacher_lr": 5e-3,
    "teacher_warmup": 0,
    "rough_at": ("0.4", "0.7"),
    "student_steps": 800,
    "student_lr": 4e-3,
    "student_warmup": 0,
    "student_start": "teacher",
    "clip_norm": 10.0,
    "refiner": "micro",
    "refine_steps": 150,
    "precision": "fp32",
    "evaluations": 4,
    "ema_decay": 0.99,
    "sync_bn": True,
}
_RECIPES: dict[str, Recipe] = {"digits": _DIGITS, "paper": _PAPER, "light": _LIGHT, "small": _SMALL}
RECIPES: Mapping[str, Recipe] = MappingProxyType({name: MappingProxyType(recipe) for name, recipe in _RECIPES.items()})

_SOURCES = {
    "digits": "the embedded scenes, for solov2-micro",
    "paper": "PointWSSIS on COCO, arXiv 2303.15062",
    "light": "light SOLOv2, images of 352 to 512 pixels, arXiv 2003.10152",
    "small": "some hundred images of one's own",
}


def recipe_source(name: str) -> str:
    """What the recipe is after: a paper, or the data it is for."""
    return _SOURCES[name]
