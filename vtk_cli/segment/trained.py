"""A trained network, found again by its run folder or its file, with all that is needed to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vtk_cli.data.points import Classes
from vtk_cli.engine.devices import Precision
from vtk_cli.engine.run_weights import BEST, EMA, LAST
from vtk_cli.errors import UserError
from vtk_cli.segment.looking import Looker
from vtk_cli.segment.rounds import round_folders
from vtk_cli.segment.solov2.checkpoint import SavedSegmenter, read_segmenter, save_segmenter
from vtk_cli.segment.solov2.configurations import Role, SegmenterConfig
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.training.augmentation import Resize

RUNS = Path("runs/segment-run")
Which = Literal["student", "teacher"]
_SIZE, _ROLE = "size", "role"
_PUBLISHED_SIZE = 800


@dataclass(frozen=True)
class Trained:
    """A network that is ready to use.

    Args:
        saved: its file: configuration, classes, weights.
        network: in eval mode on the CPU.
        resize: of its images.
        role: whose it is.
    """

    saved: SavedSegmenter
    network: SOLOv2
    resize: Resize
    role: Role

    def looker(self, device: torch.device, precision: Precision = "fp32", workers: int = 0) -> Looker:
        """The network on a device."""
        return Looker(self.network.to(device), self.resize, device, precision, workers)

    def require_classes(self, classes: Classes, where: str) -> None:
        """Refuse data whose labels mean something else.

        Raises:
            UserError: names or order differ.
        """
        known = self.saved.classes
        if known.names != classes.names:
            strange = [name for name in classes.names if name not in known.names]
            what = f"its {len(classes.names)} classes are not the {len(known.names)} of {self.saved.path}"
            raise UserError(what + (f" (it does not know {', '.join(strange[:5])})" if strange else ""), where)


def save_trained(
    path: Path,
    state: Mapping[str, Tensor],
    *,
    config: SegmenterConfig,
    classes: Classes,
    size: int,
    role: Role,
    note: Mapping[str, str] | None = None,
) -> None:
    """Write weights that `open_trained` reads.

    Args:
        path: `.safetensors`.
        state: of the network.
        config: what it is.
        classes: what its labels mean.
        size: the shorter side of its images.
        role: whose they are.
        note: what else the file says of itself.
    """
    save_segmenter(path, state, config, classes, {**(note or {}), _SIZE: str(size), _ROLE: role})


def weights_file(spec: str | Path, which: Which = "student", *, best: bool = False) -> Path:
    """The weight file that `spec` names: itself, or in the folder of a run, a round or a stage.

    Args:
        spec: the file or folder; empty: the newest run.
        which: of a run, its student, that of the last round, or its teacher.
        best: the weights that did best in validation, not those of the end.

    Raises:
        UserError: there is none.
    """
    path = Path(spec) if str(spec) else _newest(which)
    if path.is_dir():
        stages = [*(folder / which for folder in round_folders(path)), path]
        names = (BEST,) if best else (EMA, LAST)
        found = next((file for stage in stages for name in names if (file := stage / name).is_file()), None)
        if found is not None:
            return found
        if best and any((stage / LAST).is_file() for stage in stages):
            raise UserError("had nothing to be measured on", str(path), "leave out --best")
        raise UserError(f"holds no trained {which}", str(path), f"go on with it: vtk segment run --resume {path}")
    if not path.is_file():
        raise UserError("no such run folder or weight file", str(path), "name one that vtk segment run wrote")
    return path


def open_trained(spec: str | Path, which: Which = "student", size: int | None = None, *, best: bool = False) -> Trained:
    """The network that `spec` names.

    Args:
        spec: a run folder, a weight file of ours or a published one; empty: the newest run in `runs/segment-run`.
        which: of a run, its student or its teacher.
        size: the shorter side of its images; None: as trained.
        best: the weights that did best in validation, not those of the end.

    Raises:
        UserError: there is none, or the weights do not fit.
    """
    saved = read_segmenter(weights_file(spec, which, best=best), which)
    try:
        trained_size = int(saved.metadata.get(_SIZE, _PUBLISHED_SIZE))
    except ValueError as error:
        raise UserError(f"describes no network ({error})", str(saved.path), "write the file anew") from error
    role: Role = "teacher" if saved.metadata.get(_ROLE, which) == "teacher" else "student"
    return Trained(saved, saved.build(), Resize(size or trained_size), role)


def _newest(which: Which) -> Path:
    finished = sorted(RUNS.glob(f"*/{which}/{LAST}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"there is no finished run in {RUNS}", "MODEL", "name a run folder or a weight file")
    return finished[-1].parents[1]
