"""The search spaces by name, and the published architectures. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vtk_cli.errors import UserError, nearest
from vtk_cli.models.spaces.darts import DartsSpace
from vtk_cli.models.spaces.mobilenet import MobileSpace
from vtk_cli.models.spaces.nasbench201 import CellSpace
from vtk_cli.models.spaces.shufflenetv2 import ShuffleSpace
from vtk_cli.models.spaces.space import Released, Space
from vtk_cli.models.spaces.tiny import A, B, TinySpace

SPACES: Mapping[str, Space] = MappingProxyType(
    {
        space.name: space
        for space in (
            DartsSpace(),
            CellSpace(),
            ShuffleSpace(),
            MobileSpace(),
            TinySpace(
                "digits-mini",
                "64 networks for the embedded digits, 32x32 (3 genes)",
                A,
                channels=3,
                resolution=32,
                shrink=2,
            ),
            TinySpace("chain-a", "64 networks for 16x16 grey images, some much worse than others (3 genes)", A),
            TinySpace("chain-b", "64 networks for 16x16 grey images, nearly equally good (3 genes)", B),
        )
    }
)
"""Every space by the name that users type."""

RELEASED: Mapping[str, tuple[Space, Released]] = MappingProxyType(
    {name: (space, released) for space in SPACES.values() for name, released in space.released.items()}
)
"""Every published architecture by name, with its space."""


def space_named(name: str) -> Space:
    """The space of that name.

    Raises:
        UserError: there is none.
    """
    if name not in SPACES:
        raise UserError(f"unknown search space {name!r}", fix=nearest(name, SPACES) or f"there are {', '.join(SPACES)}")
    return SPACES[name]
