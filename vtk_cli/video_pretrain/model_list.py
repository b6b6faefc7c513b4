"""What `vtk models` says of the networks of `vtk video-pretrain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vtk_cli.models.listing import ListedNetwork, SharedKind
from vtk_cli.video_pretrain.networks.catalog import BACKBONES

if TYPE_CHECKING:
    from vtk_cli.models.listing import Built

TAKES: Mapping[SharedKind, str] = {}


def listed() -> tuple[ListedNetwork, ...]:
    """The video networks."""
    here = ("vtk video-pretrain run --model",)
    return tuple(
        ListedNetwork(name, "video", entry.what + (f"; other sizes: {name}:VIT" if entry.image_vit else ""), here)
        for name, entry in BACKBONES.items()
    )


def built(name: str) -> Built:
    """The network without classifier and a clip of its usual size."""
    import torch

    from vtk_cli.video_pretrain.networks.building import create_backbone

    entry = BACKBONES[name]
    clip = torch.zeros(1, 3, entry.frames, entry.side, entry.side)
    return create_backbone(name, frames=entry.frames, side=entry.side), (clip,)
