"""The published checkpoints of supernets and re-trained networks, for the networks here: names, sizes, strict loading.

GeNAS (arXiv 2305.08611) and RLNAS (arXiv 2101.11834) publish `checkpoint_epoch_*.pth.tar` of supernets, a dictionary of
`epoch` (-1 before the training), `state_dict` and `optimizer`, and re-trained networks as `epoch`, `state_dict`,
`best_acc_top1` and `optimizer` with `module.` before every name. Their networks of DARTS and NAS-Bench-201 cells are
named as the ones here. SPOS (arXiv 1904.00420) calls the parts of its ShuffleNets otherwise, and shows them images
blue first: the input channels of the first convolution are turned round, after which red comes first.

Files are read as tensors and plain values only; a file that holds more is refused before any of it runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.darts import IMAGENET, STEM_MULTIPLIER
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.nasbench201 import STAGES
from vtk_cli.models.spaces.space import SUPERNET, Shape, Space
from vtk_cli.models.spaces.stand_alone import StandAlone
from vtk_cli.models.spaces.supernet import Supernet
from vtk_cli.models.weights import read_plain, read_state_dict, state_in

_SHOWN = 4
_AUXILIARY = "auxiliary_head."
_CELL = re.compile(r"cells\.(\d+)\.")
_SPOS_NAMES = (
    (re.compile(r"^first_conv\."), "stem."),
    (re.compile(r"^features\."), "layers."),
    (re.compile(r"^conv_last\."), "head."),
    (re.compile(r"^classifier\.0\."), "head.6."),
)
_SPOS_FIRST = "stem.0.weight"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A file of weights.

    Args:
        path: the file.
        state: tensors under the names of the networks here.
        epoch: as the file says; -1 before the training; None where it does not say.
    """

    path: Path
    state: Mapping[str, Tensor]
    epoch: int | None

    @property
    def is_initial(self) -> bool:
        """Whether these are the weights before the training, which the angle is measured from."""
        return self.epoch == -1


@dataclass(frozen=True)
class LoadReport:
    """How a state differs from what a network needs.

    Args:
        missing: names that the network needs and the state has not.
        unexpected: names that the state has and the network does not know.
        reshaped: names of both whose shapes differ, with these.
        left_out: names of the second classifier, which is for training only.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the network can take the state."""
        return not (self.missing or self.unexpected or self.reshaped)

    def line(self) -> str:
        """The differences in a line: counts, and the first names."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.reshaped}
        return "; ".join(
            f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
            for kind, names in kinds.items()
            if names
        )


def read_checkpoint(path: Path, space: Space) -> Checkpoint:
    """Read a published checkpoint, or weights of a network of `vtk search`.

    Args:
        path: `.pth.tar` or any other file of `torch.save`, or `.safetensors`.
        space: of its network.

    Raises:
        UserError: it is missing or damaged, holds code, or holds no state dict.
    """
    if path.suffix == ".safetensors":
        return Checkpoint(path, read_state_dict(path), None)
    content = read_plain(path)
    epoch = content.get("epoch") if isinstance(content, Mapping) else None
    state = state_in(content, path)
    rename = _RENAMED.get(space.name)
    return Checkpoint(path, rename(state) if rename else state, epoch if type(epoch) is int else None)


def compared(network: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
    """How `state` differs from what `network` needs; how often a normalisation was updated need not be said."""
    needed = network.state_dict()
    left_out = [name for name in state if name.startswith(_AUXILIARY) and name not in needed]
    return LoadReport(
        tuple(name for name in needed if name not in state and not name.endswith("num_batches_tracked")),
        tuple(name for name in state if name not in needed and not name.startswith(_AUXILIARY)),
        tuple(
            f"{name} {tuple(state[name].shape)} for {tuple(value.shape)}"
            for name, value in needed.items()
            if name in state and state[name].shape != value.shape
        ),
        tuple(left_out),
    )


def load_strictly(network: nn.Module, checkpoint: Checkpoint) -> LoadReport:
    """Load all of a checkpoint into a network, but for a second classifier that the network has not.

    Raises:
        UserError: tensors are missing, unexpected or of another shape.
    """
    report = compared(network, checkpoint.state)
    if not report.fits:
        what = f"the weights do not fit {type(network).__name__}: {report.line()}"
        raise UserError(what, str(checkpoint.path), "check space, form, genes and width")
    left_out = {*report.left_out}
    network.load_state_dict({name: value for name, value in checkpoint.state.items() if name not in left_out})
    return report


def supernet_shape(checkpoint: Checkpoint, space: Space, *, resolution: int | None = None) -> Shape:
    """The shape of the supernet that a checkpoint is of: classes, width and cells are those of its tensors.

    Args:
        checkpoint: of a supernet.
        space: of it.
        resolution: of the images, which the weights do not tell; the supernet's own if None.

    Raises:
        UserError: it is of no supernet of this space.
    """
    return _shape(checkpoint, space, SUPERNET, resolution)


def load_supernet(path: Path, space: Space, *, resolution: int | None = None) -> tuple[Supernet, Checkpoint]:
    """The supernet that a published checkpoint is of, with its weights, in eval mode.

    Args:
        path: of the checkpoint.
        space: of the supernet.
        resolution: of the images; the supernet's own if None.

    Raises:
        UserError: it is of no supernet of this space.
    """
    checkpoint = read_checkpoint(path, space)
    supernet = space.supernet(supernet_shape(checkpoint, space, resolution=resolution))
    load_strictly(supernet, checkpoint)
    return supernet.eval(), checkpoint


def load_network(
    path: Path, space: Space, genes: Genes, *, form: str | None = None, resolution: int | None = None
) -> tuple[StandAlone, Shape]:
    """The network alone that a published checkpoint is of, with its weights, in eval mode.

    Args:
        path: of the checkpoint.
        space: of the network.
        genes: of the network, which the file does not say.
        form: of the network; None: by the names of its weights.
        resolution: of the images; the form's own if None.

    Raises:
        UserError: it is of no such network.
    """
    checkpoint = read_checkpoint(path, space)
    if form is None:
        form = IMAGENET if IMAGENET in space.forms and "stem0.0.weight" in checkpoint.state else space.alone
    shape = _shape(checkpoint, space, form, resolution)
    network = space.network(genes, shape)
    load_strictly(network, checkpoint)
    return network.eval(), shape


def _shape(checkpoint: Checkpoint, space: Space, form: str, resolution: int | None) -> Shape:
    sizes: dict[str, Any] = {}
    if space.name == "darts":
        stem = "stem0.0.weight" if form == IMAGENET else "stem.0.weight"
        rows = _rows(checkpoint, stem, space, form)
        sizes = {"width": 2 * rows if form == IMAGENET else rows // STEM_MULTIPLIER, "cells": _cells(checkpoint)}
    elif space.name == "nasbench201":
        rows = _rows(checkpoint, "stem.0.weight", space, form)
        sizes = {"width": rows, "cells": (_cells(checkpoint) - (STAGES - 1)) // STAGES}
    elif space.forms[form].width:
        sizes = {"width": _rows(checkpoint, _first_convolution(checkpoint), space, form)}
    head = "classifier.weight" if "classifier.weight" in checkpoint.state else _last_of_head(checkpoint)
    classes = _rows(checkpoint, head, space, form)
    try:
        return space.shape(form, classes, resolution=resolution, **sizes)
    except UserError as error:
        what = f"is no {form} network of {space.name}: it has {error.where}; {error.what}"
        raise UserError(what, str(checkpoint.path), "check the space and the file") from error


def _rows(checkpoint: Checkpoint, name: str, space: Space, form: str) -> int:
    if name not in checkpoint.state or not checkpoint.state[name].ndim:
        what = f"is no {form} network of {space.name}: it has no {name or 'classifier'}"
        raise UserError(what, str(checkpoint.path), "check the space and the file")
    return checkpoint.state[name].shape[0]


def _cells(checkpoint: Checkpoint) -> int:
    return 1 + max((int(match[1]) for name in checkpoint.state if (match := _CELL.match(name))), default=-1)


def _first_convolution(checkpoint: Checkpoint) -> str:
    stem = (name for name in checkpoint.state if name.startswith("stem.") and checkpoint.state[name].ndim == 4)
    return next(stem, "stem.0.weight")


def _last_of_head(checkpoint: Checkpoint) -> str:
    linear = [name for name in checkpoint.state if name.startswith("head.") and checkpoint.state[name].ndim == 2]
    return linear[-1] if linear else ""


def _of_spos(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a ShuffleNet of SPOS under the names here, for images red first; others are left as they are."""
    if not any(name.startswith("first_conv.") for name in state):
        return dict(state)
    renamed = {
        reduce(lambda found, rule: rule[0].sub(rule[1], found), _SPOS_NAMES, name): value
        for name, value in state.items()
    }
    if _SPOS_FIRST in renamed and renamed[_SPOS_FIRST].ndim == 4:
        renamed[_SPOS_FIRST] = renamed[_SPOS_FIRST].flip(1)
    return renamed


_RENAMED: Mapping[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = MappingProxyType(
    {"shufflenetv2": _of_spos}
)
"""What brings the published names of a space's networks to those here, where they differ."""
