"""Generators from checkpoints of the published code for strong tickets (arXiv 2212.08311) and feature matching.

A checkpoint is a dict whose `netG_state_dict` holds the generator, or that state dict alone. A masked layer has a
`weight` and a `flag`, its last mask, and runs with their product; `bias` and `bias_flag` likewise. The residual
generator of feature matching (arXiv 1904.02762), which the published code took over, holds each convolution under two
names, which have to agree. Layers without a bias hold single numbers in its place, which mean nothing.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.models.weights import mismatch, read_plain, refuse_unstored
from vtk_cli.prune.generators import Generator, create_generator
from vtk_cli.prune.masking import Selection, masked, prunable, set_masks
from vtk_cli.prune.rebuilding import stored, ticket_of
from vtk_cli.prune.ticket import Ticket, some

WRAPPER = "netG_state_dict"
_ANEW = "name a checkpoint of the published code, or fetch it anew"
_SNGAN_BLOCK = re.compile(r"block(\d+)\.(c1|c2|c_sc|b1|b2)")
_RESNET_BLOCK = re.compile(r"net\.resblock_(\d+)\.(conv1|conv2|conv_bypass|model\.[0346]|bypass\.0)")
_OUTER = {
    "l1": "first", "b5": "bn", "c5": "last",
    "net.firstConv": "first", "net.batchNorm": "bn", "net.lastConv": "last",
}  # fmt: skip
_INNER = {
    "c1": "conv1", "c2": "conv2", "c_sc": "shortcut", "b1": "bn1", "b2": "bn2",
    "conv1": "conv1", "conv2": "conv2", "conv_bypass": "bypass", "bypass.0": "bypass",
    "model.0": "bn1", "model.3": "conv1", "model.4": "bn2", "model.6": "conv2",
}  # fmt: skip
_FIRST_SNGAN_BLOCK = 2
_BIAS_FIELDS = ("bias", "bias_flag", "bias_scores")
_FIELDS = ("weight", "flag", "scores", *_BIAS_FIELDS, "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class PublishedGenerator:
    """A generator from a published checkpoint.

    Args:
        network: plain, its weights those it runs with, in eval mode on the CPU.
        theta: the weights before masking, by layer name.
        masks: bool, by layer name; all true where the checkpoint has no flags.
    """

    network: Generator
    theta: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]


def read_published(path: Path) -> PublishedGenerator:
    """The generator in a checkpoint of the published code, `sngan` or `resnet`.

    Raises:
        UserError: the file is missing, damaged, holds code or no such generator, or its flags are not 0 and 1.
    """
    tensors = _named(_generator_state(path), path)
    kind = "sngan" if any(key.startswith("l1.") for key in _generator_keys(tensors)) else "resnet"
    fields = _translated(tensors, path)
    try:
        network = create_generator(kind, bias=True, **_sizes(kind, fields))
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"holds no whole generator: {error} is missing", str(path), _ANEW) from error
    masks = {name: _mask(name, fields[name], path) for name in prunable(network) if name in fields}
    state = _state(network, fields, masks, path)
    if fault := mismatch(network, state):
        raise UserError(fault, str(path), _ANEW)
    network.load_state_dict(state, strict=False)
    network.requires_grad_(requires_grad=False).eval()
    return PublishedGenerator(network, {name: fields[name]["weight"].float() for name in masks}, masks)


def ticket_of_published(published: PublishedGenerator) -> Ticket:
    """A ticket of what the checkpoint keeps; the kept weights are stored in it, for no seed gives them back."""
    kept = sum(int(mask.sum()) for mask in published.masks.values())
    total = sum(mask.numel() for mask in published.masks.values())
    network = masked(copy.deepcopy(published.network), Selection(Fraction(kept, total), "global"))
    set_masks(network.network, published.masks)
    return ticket_of(network, stored("published"), algorithm="published")


def _generator_state(path: Path) -> Mapping[str, Any]:
    content = read_plain(path)
    state = content.get(WRAPPER, content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"holds no {WRAPPER}", str(path), _ANEW)
    return state


def _named(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    foreign = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if foreign:
        raise UserError(f"holds more than tensors ({some(foreign)})", str(path), _ANEW)
    tensors = {str(name).removeprefix("module."): value for name, value in state.items()}
    refuse_unstored(tensors, path)
    return tensors


def _generator_keys(tensors: Mapping[str, Tensor]) -> list[str]:
    return [key for key in tensors if key.startswith(("l1.", "net."))]


def _translated(tensors: Mapping[str, Tensor], path: Path) -> dict[str, dict[str, Tensor]]:
    """Of each module of our generator its tensors by field.

    Raises:
        UserError: a name is not known, or two names of one tensor disagree.
    """
    fields: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        owner, _, field = key.rpartition(".")
        name = _our_name(owner)
        if name is None or field not in _FIELDS:
            unknown.append(key)
            continue
        if field in _BIAS_FIELDS and tensor.ndim == 0:
            continue  # in the place of a bias that is not there
        known = fields.setdefault(name, {}).setdefault(field, tensor)
        if not torch.equal(known, tensor):
            raise UserError(f"{key} is stored twice, with other values", str(path), _ANEW)
    if unknown:
        what = f"{len(unknown)} tensors belong to no generator that is known ({some(unknown)})"
        raise UserError(what, str(path), "sngan and resnet can be read")
    return fields


def _our_name(owner: str) -> str | None:
    """Our name of a published module."""
    if owner in _OUTER:
        return f"body.{_OUTER[owner]}"
    if found := _SNGAN_BLOCK.fullmatch(owner):
        return f"body.blocks.{int(found[1]) - _FIRST_SNGAN_BLOCK}.{_INNER[found[2]]}"
    if found := _RESNET_BLOCK.fullmatch(owner):
        return f"body.blocks.{int(found[1])}.{_INNER[found[2]]}"
    return None


def _sizes(kind: str, fields: Mapping[str, Mapping[str, Tensor]]) -> dict[str, int]:
    """The arguments of `create_generator`, from the shapes.

    Raises:
        KeyError, IndexError: a layer is missing or is no convolution.
    """
    first, last = fields["body.first"]["weight"], fields["body.last"]["weight"]
    blocks = len({name.split(".")[2] for name in fields if name.startswith("body.blocks.")})
    nz = first.shape[1] if kind == "sngan" else first.shape[0]
    return {"image_size": 4 << blocks, "channels": last.shape[0], "nz": nz, "ngf": last.shape[1]}


def _mask(name: str, fields: Mapping[str, Tensor], path: Path, flag: str = "flag", of: str = "weight") -> Tensor:
    """Which numbers of a tensor are kept.

    Raises:
        UserError: the flags are not 0 and 1, or not of the tensor's shape.
    """
    flags = fields.get(flag)
    if flags is None:
        return torch.ones_like(fields[of], dtype=torch.bool)
    if flags.shape != fields[of].shape or not bool(((flags == 0) | (flags == 1)).all()):
        fix = "save the checkpoint after the masks are set; flags of a search that goes on are no masks"
        raise UserError(f"the {flag} of {name} is no mask of 0 and 1", str(path), fix)
    return flags == 1


def _state(
    network: nn.Module, fields: Mapping[str, Mapping[str, Tensor]], masks: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The state dict: weights and biases masked; biases that are missing are 0, gains of batch normalisation 1."""
    state = {}
    for name, tensors in fields.items():
        for field in ("weight", "bias", "running_mean", "running_var"):
            if field in tensors:
                state[f"{name}.{field}"] = tensors[field].float()
        if name in masks:
            state[f"{name}.weight"] = tensors["weight"].float().masked_fill(~masks[name], 0.0)
        if "bias" in tensors:
            keep = _mask(name, tensors, path, "bias_flag", "bias")
            state[f"{name}.bias"] = tensors["bias"].float().masked_fill(~keep, 0.0)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            state.setdefault(f"{name}.weight", torch.ones(module.num_features))
        if isinstance(bias := getattr(module, "bias", None), Tensor):
            state.setdefault(f"{name}.bias", torch.zeros_like(bias))
    return state
