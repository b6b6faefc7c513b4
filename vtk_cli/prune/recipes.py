"""Searches that --recipe names, by the generator and the images that they are for.

`digits` is for the embedded digits. `sngan-celeba`, `resnet-cifar10` and their like have the generators, images and
sizes of arXiv 2212.08311 with what its published settings leave open or get wrong set right: a cosine over the whole
run, the extractor in eval mode, the signed constants that its weights are called. `...-published` repeats the published
settings as its code runs them: a rate that falls and rises every 20 steps, weights N(0, 0.02), a step limit that no run
reached. `gfmn-cifar10` trains the weights, as arXiv 1904.02762 does.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Recipe = Mapping[str, Any]
"""Field of `TrialOptions` -> value."""

_FULL: Recipe = {
    "channels": 3,
    "keep": "0.1",
    "scope": "layer",
    "weight_init": "signed-constant",
    "score_init": "uniform",
    "extractor": "vgg19-bn",
    "extractor_mode": "eval",
    "feature_norm": "none",
    "moment_avg": "ama",
    "moment_rate": 1e-5,
    "lr": 1e-3,
    "weights_lr": 5e-5,
    "schedule": "cosine",
    "batch": 64,
    "steps": 300_000,
    "every": 5_000,
    "samples": 10_000,
    "eval_embedder": "inception",
    "neighbours": 5,
}
_PUBLISHED: Recipe = {
    "weight_init": "normal",
    "extractor_mode": "train",
    "lr": 5e-5,
    "schedule": "cosine-10",
    "steps": 14_000_000,
    "every": 500,
    "resize": "legacy",
}
_SNGAN: Recipe = {"gen": "sngan", "image_size": 64, "nz": 128, "ngf": 256}
_RESNET: Recipe = {"gen": "resnet", "image_size": 64, "nz": 128, "ngf": 64}
_BIGGAN: Recipe = {"gen": "biggan", "image_size": 64, "nz": 120, "ngf": 48}
_CIFAR: Recipe = {**_RESNET, "image_size": 32}

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "digits": {
            "gen": "dcgan-tiny",
            "image_size": 16,
            "channels": 1,
            "nz": 32,
            "ngf": 48,
            "keep": "0.1",
            "scope": "global",
            "weight_init": "signed-constant",
            "score_init": "uniform",
            "extractor": "digits-features",
            "extractor_mode": "eval",
            "feature_norm": "layer",
            "moment_avg": "ema",
            "moment_rate": 0.97,
            "lr": 3e-2,
            "weights_lr": 1e-2,
            "schedule": "cosine",
            "batch": 64,
            "steps": 500,
            "every": 50,
            "samples": 2_000,
            "eval_embedder": "digits-cnn",
            "neighbours": 5,
        },
        "sngan-celeba": {**_FULL, **_SNGAN},
        "resnet-celeba": {**_FULL, **_RESNET},
        "resnet-lsun": {**_FULL, **_RESNET},
        "resnet-ffhq": {**_FULL, **_RESNET},
        "resnet-cifar10": {**_FULL, **_CIFAR},
        "biggan-celeba": {**_FULL, **_BIGGAN},
        "sngan-celeba-published": {**_FULL, **_SNGAN, **_PUBLISHED},
        "resnet-cifar10-published": {**_FULL, **_CIFAR, **_PUBLISHED},
        "gfmn-cifar10": {
            **_FULL,
            **_CIFAR,
            "nz": 100,
            "algo": "dense",
            "keep": "1",
            "weight_init": "normal",
            "schedule": "constant",
            "steps": 2_000_000,
        },
    }
)

SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "digits": "for the embedded digits",
        "sngan": "arXiv 2212.08311, generator of arXiv 1802.05957",
        "resnet": "arXiv 2212.08311, generator of arXiv 1904.02762",
        "biggan": "arXiv 2212.08311, generator of arXiv 1809.11096",
        "gfmn": "arXiv 1904.02762",
    }
)


def recipe_source(name: str) -> str:
    """What the recipe is after: a paper, or the data it is for."""
    return SOURCES[name.partition("-")[0]]
