"""What `vtk models` says of the networks of `vtk segment`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vtk_cli.models.listing import ListedNetwork, SharedKind
from vtk_cli.segment.solov2.configurations import SEGMENTERS

if TYPE_CHECKING:
    from vtk_cli.models.listing import Built

TAKES: Mapping[SharedKind, str] = {}
_CLASSES = 80
_SIDES = {"solov2-light": 448, "solov2-micro": 128}


def listed() -> tuple[ListedNetwork, ...]:
    """Every size of SOLOv2."""
    return tuple(
        ListedNetwork(name, "segmenter", "SOLOv2, arXiv 2003.10152", ("vtk segment run --model",))
        for name in SEGMENTERS
    )


def built(name: str) -> Built:
    """The student with COCO's 80 classes and an image of 800 pixels; 448 for the light sizes, 128 for the micro one."""
    import torch

    from vtk_cli.segment.solov2.configurations import segmenter_config
    from vtk_cli.segment.solov2.network import SOLOv2

    side = next((side for size, side in _SIDES.items() if name.startswith(size)), 800)
    return SOLOv2(segmenter_config(name, _CLASSES)), (torch.zeros(1, 3, side, side),)
