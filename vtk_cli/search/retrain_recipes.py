"""Published trainings of one architecture from scratch (`--recipe`): what they set the options of a re-training to.

darts-imagenet is GeNAS (arXiv 2305.08611), darts-cifar is DARTS (arXiv 1806.09055, Section 3.2), shufflenetv2 is SPOS
(arXiv 1904.00420: 300,000 updates, 240 epochs of ImageNet), mobilenet is RLNAS (arXiv 2101.11834), nasbench201 is the
training of the benchmark (arXiv 2001.00326). Batch sizes are the whole update's: on fewer GPUs than the authors had,
give a smaller --batch-size with as much --accumulate.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Recipe = Mapping[str, Any]
"""Field of `RetrainOptions` -> value."""

_MOBILE: Recipe = {
    "epochs": 240,
    "batch_size": 1024,
    "lr": 0.5,
    "weight_decay": 4e-5,
    "decay_on": "weights",
    "schedule": "linear",
    "schedule_on": "updates",
    "smoothing": 0.1,
}

RETRAIN_RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "darts-imagenet": {
            "epochs": 250,
            "batch_size": 1024,
            "lr": 0.5,
            "weight_decay": 3e-5,
            "schedule": "linear-tail",
            "schedule_on": "epochs",
            "warmup_epochs": 5,
            "clip_norm": 5.0,
            "smoothing": 0.1,
            "auxiliary": 0.4,
            "augmentation": "imagenet-square",
        },
        "darts-cifar": {
            "epochs": 600,
            "batch_size": 96,
            "lr": 0.025,
            "weight_decay": 3e-4,
            "schedule": "cosine",
            "schedule_on": "epochs",
            "clip_norm": 5.0,
            "auxiliary": 0.4,
            "drop_path": 0.2,
            "augmentation": "cifar-cutout",
        },
        "shufflenetv2": {**_MOBILE, "augmentation": "spos"},
        "mobilenet": {**_MOBILE, "clip_norm": 5.0, "augmentation": "imagenet-square"},
        "nasbench201": {
            "epochs": 200,
            "batch_size": 256,
            "lr": 0.1,
            "nesterov": True,
            "weight_decay": 5e-4,
            "schedule": "cosine",
            "schedule_on": "epochs",
            "augmentation": "cifar",
        },
        "digits": {
            "epochs": 20,
            "batch_size": 50,
            "lr": 0.1,
            "weight_decay": 3e-4,
            "schedule": "cosine",
            "schedule_on": "updates",
            "clip_norm": 5.0,
            "augmentation": "digits",
        },
    }
)

_SOURCES = {
    "darts-imagenet": "GeNAS, arXiv 2305.08611",
    "darts-cifar": "DARTS, arXiv 1806.09055, Section 3.2",
    "shufflenetv2": "SPOS, arXiv 1904.00420",
    "mobilenet": "RLNAS, arXiv 2101.11834",
    "nasbench201": "NAS-Bench-201, arXiv 2001.00326",
    "digits": "the embedded digits",
}


def retrain_recipe_source(name: str) -> str:
    """What the recipe is after: a paper, or the data it is for."""
    return _SOURCES[name]


def retrain_recipe_of(space: str, form: str) -> str:
    """The recipe that the authors of a space trained its networks of a form with.

    Args:
        space: its name.
        form: of the network.
    """
    if space == "darts":
        return f"darts-{form}"
    return space if space in RETRAIN_RECIPES else "digits"
