"""Image generators: a name and a size in, a plain network out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vtk_cli.prune.generators.catalog import GENERATORS, GeneratorCard

if TYPE_CHECKING:
    from vtk_cli.prune.generators.creation import Generator, create_generator

__all__ = ["GENERATORS", "Generator", "GeneratorCard", "create_generator"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used."""
    if name in {"Generator", "create_generator"}:
        return getattr(import_module(f"{__name__}.creation"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
