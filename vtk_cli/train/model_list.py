"""What `vtk models` says of the networks of `vtk train`."""

from __future__ import annotations

from collections.abc import Mapping

from vtk_cli.models.listing import ListedNetwork, SharedKind

_HERE = "vtk train --model"
TAKES: Mapping[SharedKind, str] = {"timm": _HERE, "torchvision": _HERE, "architecture": _HERE}


def listed() -> tuple[ListedNetwork, ...]:
    """None of its own."""
    return ()
