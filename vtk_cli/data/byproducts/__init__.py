"""Annotation byproducts: where annotators clicked while they labelled images (arXiv 2303.17595).

As a library:

    from vtk_cli.data.byproducts import match_byproducts, read_byproducts

    byproducts = read_byproducts(Path("clicks.csv"), console=Console())
    targets = match_byproducts(byproducts, names, class_names, multi_label=False, console=Console())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtk_cli.data.byproducts.marks import Byproducts
    from vtk_cli.data.byproducts.matching import match_byproducts
    from vtk_cli.data.byproducts.reading import read_byproducts
    from vtk_cli.data.byproducts.targets import PointTargets

__all__ = ["Byproducts", "PointTargets", "match_byproducts", "read_byproducts"]

_HOMES = {
    "Byproducts": "marks",
    "PointTargets": "targets",
    "match_byproducts": "matching",
    "read_byproducts": "reading",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the processes that read files start without torch."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
