"""What `vtk models` says of the networks of `vtk detect`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vtk_cli.detect.configurations import DETECTORS
from vtk_cli.models.listing import ListedNetwork, SharedKind

if TYPE_CHECKING:
    from vtk_cli.models.listing import Built

TAKES: Mapping[SharedKind, str] = {
    "timm": "vtk detect train --backbone",
    "architecture": "vtk detect train --backbone",
}
_FAMILIES = {
    "vidt-plus": "ViDT+, arXiv 2204.07962",
    "vidt-neck-free": "ViDT without neck, arXiv 2110.03921",
    "vidt": "ViDT, arXiv 2110.03921",
}
_CLASSES, _SIDE, _MICRO_SIDE = 80, 640, 128


def listed() -> tuple[ListedNetwork, ...]:
    """Every size of ViDT and ViDT+."""
    return tuple(
        ListedNetwork(name, "detector", _FAMILIES[name.rpartition("-")[0]], ("vtk detect train --model",))
        for name in DETECTORS
    )


def built(name: str) -> Built:
    """The detector with COCO's 80 classes and an image of 640 pixels, for the micro sizes of 128."""
    import torch

    from vtk_cli.detect.configurations import detector_config
    from vtk_cli.detect.network import build_detector
    from vtk_cli.detect.predictions import PaddedImages

    side = _MICRO_SIDE if name.endswith("micro") else _SIDE
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    batch = PaddedImages(torch.zeros(1, 3, side, side), mask, torch.full((1, 2), side))
    return build_detector(detector_config(name, _CLASSES)), (batch,)
