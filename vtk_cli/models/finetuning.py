"""The network a training starts from: random, published or a file's, with a classifier for the training's classes.

Files in the formats of DeiT and masked sub-models (`gamma_1`), MAE's pre-training (with or without its decoder, no
classifier), Swin and timm are read through timm's own conversions, which also resize position embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from timm.layers import DropPath
from timm.models import Eva, VisionTransformer
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.models.architectures import Weights, class_count, stored_arguments, timm_heads
from vtk_cli.models.names import NetworkName, parse_network
from vtk_cli.models.weights import head_classes, state_sha256
from vtk_cli.models.zoo import AUTO, SCRATCH, Network, build, find_weights, load

_SAVED = "model.safetensors"
_SHOWN = 8


def starting_network(
    spec: str | NetworkName,
    *,
    weights: str | Path,
    num_classes: int,
    model_args: Mapping[str, Any],
    img_size: int | None,
    console: Console,
    offline: bool = False,
) -> tuple[Network, list[str]]:
    """The network that a training on `num_classes` classes starts from.

    A classifier of another number of classes is left out and a new one takes its place; so is MAE's last normalisation
    where features are averaged (arXiv 2111.06377, appendix A). One note says what was started anew. Everything else
    must fit.

    Args:
        spec: a name as `parse_network` reads it; the weights of `NAME=FILE` count where `weights` is `scratch`.
        weights: `scratch`: random, from torch's global generator; `pretrained`: the published ones; else a weight file,
            or a folder with a `model.safetensors`.
        num_classes: of the training.
        model_args: for the constructor; they win over those a weight file names.
        img_size: side of the input in pixels; None for the network's own.
        console: where the note goes.
        offline: look for published weights on this machine only.

    Returns:
        The network, in eval mode on the CPU, and the names of the parameters that were not loaded; none of these for
        random weights.

    Raises:
        NoWeights: there are no published weights, or none here and no network.
        UserError: an unknown name, a constructor that refuses its arguments, a file that cannot be read or that does
            not fit (with counts).
    """
    name = parse_network(spec) if isinstance(spec, str) else spec
    found = find_weights(name, _source(name, weights), offline=offline)
    loaded = load(found) if found else None
    arguments = {**stored_arguments(loaded), **model_args}
    if img_size is not None:
        arguments |= _size_argument(name, img_size, arguments, offline=offline)
    module, config = build(name, None, num_classes, arguments, offline=offline)
    if class_count(module) != num_classes:
        raise UserError(f"has {class_count(module)} classes, not {num_classes}", name.spec, "let it take num_classes")
    made_anew: list[str] = []
    if found is not None and loaded is not None:
        fitted = _fitted(loaded, module)
        filled, config = build(
            name, fitted.weights, _classes_to_build(name, fitted.weights), arguments, offline=offline
        )
        new_classifier = _fill(module, filled)
        made_anew = [*fitted.fresh, *new_classifier]
        if note := _note((class_count(filled), num_classes), made_anew, fitted.left_out):
            console.note(f"weights from {found.source}: {note}")
    size = img_size or arguments.get("img_size") or arguments.get("image_size")
    network = Network(
        module.eval(),
        name,
        replace(config, input_size=int(size)) if isinstance(size, int) else config,
        found.source if found else SCRATCH,
        sha256_file(found.path) if found else state_sha256(module),
        num_classes,
        arguments,
    )
    return network, made_anew


def set_constant_drop_path(network: nn.Module, rate: float) -> int:
    """Drop every residual branch at the same `rate` in training, whatever its depth (DeiT-III, arXiv 2204.07118).

    Args:
        network: a timm network; also one that was built without stochastic depth.
        rate: the chance that a sample skips the branch, in [0, 1).

    Returns:
        How many branches there are.

    Raises:
        UserError: the network has none.
    """
    branches = [
        (block, name)
        for block in network.modules()
        for name in dict.fromkeys((*dict(block.named_children()), "drop_path"))
        if name.startswith("drop_path") and _is_branch(block, name)
    ]
    if not branches:
        fix = "choose a ViT, Swin, ConvNeXt or ResNet, or leave it out"
        raise UserError(f"{type(network).__name__} has no stochastic depth", "--drop-path", fix)
    for block, name in branches:
        setattr(block, name, DropPath(rate).train(block.training))
    return len(branches)


def _is_branch(block: nn.Module, name: str) -> bool:
    """timm has `Identity` in place of a rate of 0, a ResNet's block has None."""
    return isinstance(getattr(block, name, ...), (DropPath, nn.Identity, type(None)))


def _source(name: NetworkName, weights: str | Path) -> str | Path:
    if weights == SCRATCH:
        return SCRATCH if name.path is None else AUTO
    folder = Path(weights).expanduser()
    return folder / _SAVED if folder.is_dir() else weights


def _size_argument(name: NetworkName, size: int, arguments: Mapping[str, Any], *, offline: bool) -> dict[str, int]:
    """What the constructor calls the input's side; empty for networks that take images of any size."""
    if name.factory:
        return {}
    with torch.device("meta"):
        module, _ = build(name, None, None, arguments, offline=offline)
    if dict(getattr(module, "pretrained_cfg", {})).get("fixed_input_size"):
        return {"img_size": size}
    return {"image_size": size} if hasattr(module, "image_size") else {}


@dataclass(frozen=True)
class _Fitted:
    """Weights without what a pre-training leaves behind.

    Args:
        weights: what is loaded, strictly.
        fresh: names of tensors among it that were not in the file.
        left_out: names in the file that have no place in the network.
    """

    weights: Weights
    fresh: list[str]
    left_out: list[str]


def _fitted(weights: Weights, module: nn.Module) -> _Fitted:
    state, needed = dict(weights.state), module.state_dict()
    left_out = [name for name in state if name.startswith("decoder_") and name not in needed]
    # timm tells files of DINOv2 and BEiT by their mask token, and drops it itself.
    if "mask_token" in state and "mask_token" not in needed and not isinstance(module, (VisionTransformer, Eva)):
        left_out.append("mask_token")
    fresh: list[str] = []
    if "fc_norm.weight" in needed.keys() - state.keys() and "norm.weight" in state.keys() - needed.keys():
        left_out += [name for name in state if name.startswith("norm.")]
        fresh = [name for name in needed if name.startswith("fc_norm.")]
    kept = {name: tensor for name, tensor in state.items() if name not in left_out}
    return _Fitted(replace(weights, state={**kept, **{name: needed[name] for name in fresh}}), fresh, left_out)


def _classes_to_build(name: NetworkName, weights: Weights) -> int | None:
    """The number of classes that the weights are of; none, as timm says it, for weights without a classifier."""
    if name.factory or name.name.startswith("tv:"):
        return head_classes(weights.state)
    return head_classes(weights.state, timm_heads(name)) or 0


def _fill(module: nn.Module, filled: nn.Module) -> list[str]:
    """Copy the weights of `filled`, the same network but for its classifier; the names `module` keeps its own of."""
    own, given = module.state_dict(), filled.state_dict()
    new = [name for name, tensor in own.items() if name not in given or _shape(given[name]) != _shape(tensor)]
    module.load_state_dict({name: tensor if name in new else given[name] for name, tensor in own.items()})
    return new


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else None


def _note(classes: tuple[int, int], made_anew: list[str], left_out: list[str]) -> str:
    """What was not loaded, and why; empty where everything was. `classes`: those of the weights and of the training."""
    before, now = classes
    parts = []
    if made_anew:
        if before != now:
            parts.append(f"{before} classes there, {now} here" if before else "no classifier there")
        parts.append(f"reinitialised: {_listed(made_anew)}")
    if left_out:
        parts.append(f"left out: {_listed(left_out)}")
    return "; ".join(parts)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
