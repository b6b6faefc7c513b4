"""Published trainings of a supernet (`--recipe`), by the space they are for.

darts is GeNAS (arXiv 2305.08611), nasbench201 and mobilenet are RLNAS (arXiv 2101.11834) with true labels,
shufflenetv2 is SPOS (arXiv 1904.00420), the small ones are for the embedded digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Recipe = Mapping[str, Any]
"""Field of `SupernetOptions` -> value."""

_CIFAR: Recipe = {
    "epochs": 250,
    "batch_size": 64,
    "lr": 0.025,
    "min_lr": 0.001,
    "schedule": "cosine",
    "schedule_on": "epochs",
    "augmentation": "cifar",
}
_TINY: Recipe = {
    "epochs": 200,
    "batch_size": 50,
    "lr": 0.1,
    "min_lr": 0.0,
    "schedule": "cosine",
    "schedule_on": "updates",
    "weight_decay": 3e-4,
    "clip_norm": 5.0,
    "augmentation": "digits",
}

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "digits-mini": _TINY,
        "chain-a": _TINY,
        "chain-b": _TINY,
        "darts": {**_CIFAR, "weight_decay": 3e-4, "clip_norm": 5.0},
        "nasbench201": {**_CIFAR, "weight_decay": 5e-4, "nesterov": True},
        "shufflenetv2": {
            "epochs": 120,  # 150,000 updates of 1,024 images of ImageNet
            "batch_size": 1024,
            "lr": 0.5,
            "min_lr": 0.0,
            "schedule": "linear",
            "schedule_on": "updates",
            "weight_decay": 4e-5,
            "decay_on": "weights",
            "smoothing": 0.1,
            "augmentation": "spos",
        },
        "mobilenet": {
            "epochs": 250,
            "batch_size": 512,
            "lr": 0.25,
            "min_lr": 5e-4,
            "schedule": "linear",
            "schedule_on": "updates",
            "weight_decay": 4e-5,
            "decay_on": "weights",
            "clip_value": 5.0,
            "smoothing": 0.1,
            "augmentation": "imagenet-lighting",
        },
    }
)

_SOURCES = {
    "digits-mini": "the embedded digits",
    "chain-a": "the embedded digits, 16 pixels",
    "chain-b": "the embedded digits, 16 pixels",
    "darts": "GeNAS, arXiv 2305.08611",
    "nasbench201": "RLNAS, arXiv 2101.11834, with true labels",
    "shufflenetv2": "SPOS, arXiv 1904.00420",
    "mobilenet": "RLNAS, arXiv 2101.11834, with true labels",
}


def recipe_source(name: str) -> str:
    """What the recipe is after: a paper, or the data it is for."""
    return _SOURCES[name]
