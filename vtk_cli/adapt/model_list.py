"""What `vtk models` says of the networks of `vtk adapt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vtk_cli.models.listing import ListedNetwork, SharedKind

if TYPE_CHECKING:
    from vtk_cli.models.listing import Built

_HERE = "vtk adapt start --net"
TAKES: Mapping[SharedKind, str] = {"timm": _HERE}


def listed() -> tuple[ListedNetwork, ...]:
    """The small network of 32 x 32 images."""
    return (ListedNetwork("digits-cnn", "classifier", "three convolutions, for images of 32 x 32", (_HERE,)),)


def built(name: str) -> Built:  # noqa: ARG001 - there is but one
    """The network with ten classes and an image."""
    import torch

    from vtk_cli.adapt.backbones import digits_classifier

    return digits_classifier(), (torch.zeros(1, 3, 32, 32),)
