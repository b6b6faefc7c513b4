"""What `vtk models` says of the networks of `vtk prune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vtk_cli.models.listing import ListedNetwork, SharedKind
from vtk_cli.prune.generators.catalog import GENERATORS

if TYPE_CHECKING:
    from vtk_cli.models.listing import Built

TAKES: Mapping[SharedKind, str] = {}


def listed() -> tuple[ListedNetwork, ...]:
    """The generators."""
    return tuple(
        ListedNetwork(name, "generator", card.about, ("vtk prune run --gen",)) for name, card in GENERATORS.items()
    )


def built(name: str) -> Built:
    """The generator of its usual size and a noise vector."""
    import torch

    from vtk_cli.prune.generators.creation import create_generator

    generator = create_generator(name)
    return generator, (torch.zeros(1, generator.nz),)
