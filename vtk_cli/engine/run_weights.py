"""The weights that a training leaves in its run folder, and how they are found again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vtk_cli.engine.run_config import RunConfig
from vtk_cli.errors import UserError

LAST, EMA, BEST = "model.safetensors", "ema.safetensors", "best.safetensors"
Which = Literal["last", "ema", "best"]
_FILE_OF = {"last": LAST, "ema": EMA, "best": BEST}


def weights_of_run(folder: Path, which: Which) -> Path:
    """The file of a finished run's weights at its end, of their average, or of those that did best in validation.

    Raises:
        UserError: the folder holds no run, the run is not finished, or it kept no such weights.
    """
    path = folder / _FILE_OF[which]
    if path.is_file():
        return path
    if (folder / LAST).is_file():
        missing = {"ema": "kept no averaged weights", "best": "had nothing to be measured on"}
        raise UserError(f"the run {missing[which]}", str(folder), "leave out --which")
    config = RunConfig.read(folder)
    if config is None:
        raise UserError("holds no run", str(folder), "name a run folder or a weight file")
    fix = f"go on with it: vtk {config.command} --resume {folder}"
    raise UserError(f"the run is not finished and has no {path.name} yet", str(folder), fix)


def newest_run(runs: Path, option: str) -> Path:
    """The folder of the run in `runs` that was finished last.

    Args:
        runs: a folder of run folders.
        option: where a user would have named one.

    Raises:
        UserError: there is none.
    """
    finished = sorted(runs.glob(f"*/{LAST}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"there is no finished run in {runs}", option, "name a run folder or a weight file")
    return finished[-1].parent
