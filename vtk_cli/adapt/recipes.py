"""The ways to train (`--recipe`) and sets of values for benchmarks (`--preset`). Nothing heavy is imported here.

`sequential` follows the abstract of arXiv 2204.11665: stages on labelled, then on pseudo-labelled target images, with
information maximisation. `tl-ada` adds the discriminator of its journal version (doi 10.1016/j.neunet.2023.02.004).
`joint` and `labelled` are what they are compared with. Presets without `-published` have what is ours: labelled images
are replayed, the loss predictor sees embedding and probabilities, and the target's statistics are measured before the
first pseudo labels. `...-published` repeats the code that the authors of TL-ADA released.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

RecipeName = Literal["sequential", "tl-ada", "joint", "labelled"]
Preset = Mapping[str, Any]
"""Field of `AdaptOptions` -> value."""

RECIPES: Mapping[str, str] = MappingProxyType(
    {
        "sequential": "labelled target alone, then pseudo labels and information maximisation (arXiv 2204.11665)",
        "tl-ada": "the same with a discriminator of domains (doi 10.1016/j.neunet.2023.02.004)",
        "joint": "baseline: source and labelled target side by side, as LADA fine-tunes (arXiv 2208.12856)",
        "labelled": "baseline: labelled target alone",
    }
)
_IMAGENET: Preset = {
    "net": "resnet50",
    "weights": "pretrained",
    "source_epochs": 20,
    "source_lr": 1e-3,
    "lr": 1e-3,
    "predictor_lr": 1e-2,
    "budget": "5%",
    "rounds": 5,
    "temperature": 0.1,
}
_VISDA: Preset = {**_IMAGENET, "stage1_batch": 64, "pl_late": True, "pl_refresh": 4, "las_candidates": 5}
_PUBLISHED: Preset = {
    "per_round": "1%",
    "rounds": 10,
    "replay": 0.0,
    "lpm_inputs": "stages",
    "target_bn_init": "pretrained",
    "stage1_max_passes": 1_000_000,
    "pl_refresh": 15,
}
_DIGITS: Preset = {
    "net": "digits-cnn",
    "weights": "scratch",
    "dsbn": False,
    "target_bn_init": "source",
    "source_epochs": 15,
    "source_lr": 0.05,
    "lr": 0.01,
    "predictor_lr": 0.05,
    "stage1_steps": 30,
    "stage2_steps": 50,
    "joint_steps": 80,
    "pl_refresh": 3,
    "budget": "10%",
    "rounds": 4,
    "temperature": 1.0,
}
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "digits": _DIGITS,
        "office31": _IMAGENET,
        "office31-dslr-webcam": {**_IMAGENET, "passes": 4.0},
        "office-home": _IMAGENET,
        "visda": _VISDA,
        "domainnet": {**_IMAGENET, "im_prior": "none"},
        "digits-published": {**_DIGITS, "replay": 0.0, "lpm_inputs": "stages"},
        "office31-published": {**_IMAGENET, **_PUBLISHED},
        "office-home-published": {**_IMAGENET, **_PUBLISHED},
        "visda-published": {**_VISDA, **_PUBLISHED},
    }
)
ABOUT: Mapping[str, str] = MappingProxyType(
    {
        "digits": "the embedded digits, plain and on photos",
        "office31": "Office-31",
        "office31-dslr-webcam": "Office-31 between dslr and webcam, whose second stage is twice as long",
        "office-home": "Office-Home",
        "visda": "VisDA-2017",
        "domainnet": "DomainNet, whose classes are more than a batch has images",
    }
)


def about(name: str) -> str:
    """What a preset is for."""
    whole = name.removesuffix("-published")
    return ABOUT[whole] + (", as the authors' code trains" if whole != name else "")
