"""Sets of values for images and attack (`--preset`). Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Preset = Mapping[str, Any]
"""Field of `SimilarityOptions` -> value."""

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # PGD on 5,000 images of ImageNet's validation set, each network with its own crop.
        "paper": {
            "images": 5000,
            "eps": "8/255",
            "steps": 50,
            "step_size": "0.1eps",
            "protocol": "paper",
            "batch_size": 32,
        },
        "standard": {"images": 2000, "eps": "8/255", "steps": 20, "step_size": "2/255", "batch_size": 32},
        "digits": {"eps": "32/255", "steps": 10, "step_size": "6/255", "batch_size": 64},
    }
)
_SOURCES = {
    "paper": "SAT as published, arXiv 2210.11407",
    "standard": "images of one's own: fewer of them and of the steps",
    "digits": "the embedded digits",
}


def preset_source(name: str) -> str:
    """What the preset is after: a paper, or the data it is for."""
    return _SOURCES[name]
