"""What `vtk models` says of the search spaces; the published architectures are every subcommand's."""

from __future__ import annotations

from collections.abc import Mapping

from vtk_cli.models.listing import ListedNetwork, SharedKind
from vtk_cli.models.spaces.catalog import SPACES

TAKES: Mapping[SharedKind, str] = {"architecture": "vtk search show"}


def listed() -> tuple[ListedNetwork, ...]:
    """The search spaces."""
    return tuple(
        ListedNetwork(name, "space", f"search space: {space.summary}", ("vtk search run --space",))
        for name, space in SPACES.items()
    )
