"""Finds what the subcommands bring to a family: a `proof.py` or a `bench.py` in their folder. Imports none of them.

Two benches are of no subcommand: that of the kernels, which know nothing of this program, so that `families.kernels`
speaks for them, and that of several processes and of saving, `families.scale`.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import vtk_cli
from vtk_cli.errors import UserError, nearest

_OWN = {"bench": {"kernels": "vtk_cli.families.kernels", "scale": "vtk_cli.families.scale"}}
_CALLED = {"bench": {"video_pretrain": "video"}}
"""Where a member has another name than its subcommand: that bench is of reading videos."""


def members(family: str) -> dict[str, str]:
    """Name -> module: the family's own, and every subcommand folder with a `{family}.py`, named as it is typed."""
    folders = [module.name for module in pkgutil.iter_modules(vtk_cli.__path__) if module.ispkg]
    here = [folder for folder in folders if (Path(vtk_cli.__path__[0]) / folder / f"{family}.py").exists()]
    called = _CALLED.get(family, {})
    names = {folder: called.get(folder, folder.replace("_", "-")) for folder in here if folder != "families"}
    found = {name: f"vtk_cli.{folder}.{family}" for folder, name in names.items()}
    return _OWN.get(family, {}) | found


def load(family: str, names: tuple[str, ...]) -> dict[str, ModuleType]:
    """The modules that `names` ask for; `all` asks for every one.

    Raises:
        UserError: nothing is known by a name.
    """
    known = members(family)
    wanted = list(known) if "all" in names else list(names)
    for name in wanted:
        if name not in known:
            there_is = nearest(name, known) or f"there is {', '.join(known)}, all"
            raise UserError(f"no {family} {name!r}", fix=there_is)
    return {name: importlib.import_module(known[name]) for name in wanted}
