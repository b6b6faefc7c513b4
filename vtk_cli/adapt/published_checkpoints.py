"""Checkpoints of the authors of TL-ADA and of SHOT, read and (TL-ADA's) written.

TL-ADA (github.com/Han00127/TL-ADA): `FE.pt`, backbone and bottleneck with a batch normalisation for each domain, and
`CLS.pt`, the classifier. SHOT (arXiv 2002.08546): `..._F.pt`, `..._B.pt`, `..._C.pt`, with one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vtk_cli.adapt.domain_norm import SOURCE
from vtk_cli.adapt.export import backbone_state, plain_state
from vtk_cli.adapt.networks import DomainNetwork
from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path, make_folder
from vtk_cli.models.weights import mismatch, read_state_dict

ENCODER, CLASSIFIER = "FE.pt", "CLS.pt"
_HEAD = {
    "weight_g": "head.parametrizations.weight.original0",
    "weight_v": "head.parametrizations.weight.original1",
    "parametrizations.weight.original0": "head.parametrizations.weight.original0",
    "parametrizations.weight.original1": "head.parametrizations.weight.original1",
    "bias": "head.bias",
}
_INSIDE = "backbone.network."


@dataclass(frozen=True, eq=False)
class PublishedCheckpoint:
    """The tensors of a checkpoint, under the names that a `DomainNetwork` has.

    Args:
        state: with a batch normalisation for each domain, or one that both start from.
        where: it was read.
        classes: how many its classifier has.
    """

    state: Mapping[str, Tensor]
    where: Path
    classes: int


def read_published(folder: Path) -> PublishedCheckpoint:
    """Read the checkpoint in a folder.

    Raises:
        UserError: there is none, or more than one, or a file is damaged.
    """
    if (folder / ENCODER).is_file() and (folder / CLASSIFIER).is_file():
        state = _encoder(read_state_dict(folder / ENCODER), "bottleneck.", "b_bn1.")
        head = read_state_dict(folder / CLASSIFIER)
    else:
        first, second, third = (_only(folder, letter) for letter in "FBC")
        state = {f"{_INSIDE}{name}": value for name, value in read_state_dict(first).items()}
        state |= _bottleneck(read_state_dict(second), "bottleneck.", "bn.")
        head = read_state_dict(third)
    state |= {_HEAD[key]: value for name, value in head.items() if (key := name.removeprefix("fc.")) in _HEAD}
    if "head.parametrizations.weight.original1" not in state:
        raise UserError("its classifier is not weight-normed", str(folder), f"name a folder with {ENCODER}")
    return PublishedCheckpoint(state, folder, len(state["head.parametrizations.weight.original1"]))


def load_published(network: DomainNetwork, checkpoint: PublishedCheckpoint) -> None:
    """Fill a network; where the checkpoint has one batch normalisation, both domains get it.

    A network without domains gets the source's of a checkpoint that has two.

    Raises:
        UserError: the checkpoint is of another architecture, width or number of classes.
    """
    if checkpoint.classes != network.classes:
        what = f"is of {checkpoint.classes} classes, the source has {network.classes}"
        raise UserError(what, str(checkpoint.where), "give the classes it was trained on")
    given = dict(checkpoint.state) if network.domain_norm else plain_state(checkpoint.state, SOURCE)
    own = network.state_dict()
    used: set[str] = set()
    state = {}
    for name, value in own.items():
        plain = name.replace(".bns.0.", ".").replace(".bns.1.", ".")
        found = name if name in given else plain
        used.add(found)
        if found in given:
            state[name] = given[found]
        elif name.endswith("num_batches_tracked"):
            state[name] = value
    state |= {name: given[name] for name in given.keys() - used if not name.startswith(f"{_INSIDE}fc.")}
    if differs := mismatch(network, state):
        raise UserError(differs, str(checkpoint.where), "name the network it was trained with")
    network.load_state_dict(state)


def save_published(network: DomainNetwork, folder: Path) -> None:
    """Write `FE.pt` and `CLS.pt`, as TL-ADA's code reads them.

    Args:
        network: with a batch normalisation for each domain, and a ResNet of torchvision's names as backbone.
        folder: made if missing.

    Raises:
        UserError: the network has one batch normalisation for both domains.
        JobError: the disk is full.
    """
    if not network.domain_norm:
        raise UserError("the domains share their batch normalisation", fix="keep --dsbn, or export a plain network")
    whole = network.state_dict()
    encoder = backbone_state(network)
    encoder |= {name: whole[name] for name in ("bottleneck.weight", "bottleneck.bias")}
    encoder |= {f"b_bn1.{name}": value for name, value in network.norm.state_dict().items()}
    head = {f"fc.{name}": whole[_HEAD[name]] for name in ("weight_g", "weight_v", "bias")}
    make_folder(folder)
    for name, state in ((ENCODER, encoder), (CLASSIFIER, head)):
        with atomic_path(folder / name) as temporary:
            torch.save({key: value.detach().cpu() for key, value in state.items()}, temporary)


def _encoder(state: Mapping[str, Tensor], bottleneck: str, norm: str) -> dict[str, Tensor]:
    """Backbone, bottleneck and its batch normalisation in one state dict."""
    apart = {name: value for name, value in state.items() if name.startswith((bottleneck, norm))}
    inside = {f"{_INSIDE}{name}": value for name, value in state.items() if name not in apart}
    return inside | _bottleneck(apart, bottleneck, norm)


def _bottleneck(state: Mapping[str, Tensor], bottleneck: str, norm: str) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        if name.startswith(norm):
            found[f"norm.{name.removeprefix(norm)}"] = value
        elif name.startswith(bottleneck):
            found[f"bottleneck.{name.removeprefix(bottleneck)}"] = value
    return found


def _only(folder: Path, letter: str) -> Path:
    found = sorted({*folder.glob(f"*_{letter}.pt"), *folder.glob(f"{letter}.pt")}) if folder.is_dir() else []
    if len(found) != 1:
        many = f"{len(found)} files" if found else "no file"
        what = f"holds neither {ENCODER} and {CLASSIFIER} nor SHOT's three files ({many} *_{letter}.pt)"
        raise UserError(what, str(folder), "name the folder of one checkpoint")
    return found[0]
