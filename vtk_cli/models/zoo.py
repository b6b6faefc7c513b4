"""From a name to a network with its weights and the preprocessing that belongs to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.models.architectures import (
    Weights,
    class_count,
    factory_network,
    searched_network,
    stored_arguments,
    timm_network,
    torchvision_network,
)
from vtk_cli.models.names import NetworkName, file_metadata, parse_network
from vtk_cli.models.preprocessing import PixelConfig, pixels_to_json
from vtk_cli.models.published import hub_folder, hub_weights, timm_weights, torchvision_weights
from vtk_cli.models.spaces.architecture import NAMED
from vtk_cli.models.weights import WeightFile, read_state_dict, state_sha256

__all__ = ["AUTO", "PRETRAINED", "SCRATCH", "Network", "PixelConfig", "create_network", "network_metadata"]

AUTO, PRETRAINED, SCRATCH = "auto", "pretrained", "scratch"


@dataclass(frozen=True)
class Network:
    """A classifier, ready to use.

    Args:
        module: in eval mode, on the CPU; maps normalised images (B, 3, S, S) to logits (B, num_classes).
        name: what it was made from.
        config: the preprocessing that belongs to its weights.
        weights_source: `scratch`, `factory`, `file: PATH`, `cache: WHERE` or `download: WHERE`.
        weights_sha256: of the weight file; where there is none, `state_sha256(module)`.
        num_classes: how many logits; 0 for a network without a classifier.
        model_args: what its constructor was given besides the number of classes.
    """

    module: nn.Module
    name: NetworkName
    config: PixelConfig
    weights_source: str
    weights_sha256: str
    num_classes: int
    model_args: Mapping[str, Any] = field(default_factory=dict)


def create_network(
    spec: str | NetworkName,
    *,
    weights: str | Path = AUTO,
    num_classes: int | None = None,
    offline: bool = False,
    **model_args: Any,
) -> Network:
    """Make the network that `spec` names, with its weights.

    Args:
        spec: a name as `parse_network` reads it, or its result.
        weights: `auto`: the file the name gives; else the published weights, from this machine's caches or fetched; a
            factory's network as it comes. `pretrained`: the published weights. `scratch`: random, from torch's global
            generator. Anything else is the path of a weight file.
        num_classes: how many logits; loaded weights have those of their head, which must then be as many.
        offline: look for published weights on this machine only.
        model_args: for the network's constructor, e.g. `img_size=32`.

    Raises:
        NoWeights: there are no published weights, or none here and no network; a fallback may catch it.
        UserError: an unknown name, a file that cannot be read, or weights that do not fit the network.
    """
    name = parse_network(spec) if isinstance(spec, str) else spec
    found = find_weights(name, weights, offline=offline)
    loaded = load(found) if found else None
    module, config = build(name, loaded, num_classes, model_args, offline=offline)
    classes = class_count(module)
    if num_classes is not None and classes != num_classes:
        fix = "use weights with as many classes, or train it from scratch"
        raise UserError(f"has {classes} classes, not {num_classes}", name.spec, fix)
    made = "factory" if name.factory and weights != SCRATCH else SCRATCH
    digest = sha256_file(found.path) if found else state_sha256(module)
    arguments = {**stored_arguments(loaded), **model_args}
    return Network(module.eval(), name, config, found.source if found else made, digest, classes, arguments)


def find_weights(name: NetworkName, weights: str | Path, *, offline: bool) -> WeightFile | None:
    """The weight file that `create_network` would load; None for a network whose weights are random or its factory's.

    Args:
        name: the network.
        weights: `auto`, `pretrained`, `scratch`, or the path of a weight file.
        offline: look for published weights on this machine only.

    Raises:
        NoWeights: there are no published weights, or none here and no network.
        UserError: the kind of network has no published weights.
    """
    if weights == SCRATCH or (weights == AUTO and name.kind in {"factory", "searched"}):
        return None
    given = name.path if weights == AUTO else None if weights == PRETRAINED else Path(weights).expanduser()
    if given is not None:
        return WeightFile(given, f"file: {given}", published=False)
    if name.kind in ("file", "factory", "searched"):
        raise UserError("has no published weights", name.spec, "name a timm, tv: or hub: network alone")
    if name.kind == "hub":
        return hub_weights(name, offline=offline)
    find = torchvision_weights if name.kind == "torchvision" else timm_weights
    return find(name, offline=offline)


def load(file: WeightFile) -> Weights:
    """The tensors of a weight file, and what the user's own file says of itself.

    Raises:
        UserError: it cannot be read.
    """
    state = read_state_dict(file.path)
    return Weights(state, file.path, file.published, {} if file.published else file_metadata(file.path))


def build(
    name: NetworkName,
    weights: Weights | None,
    num_classes: int | None,
    model_args: Mapping[str, Any],
    *,
    offline: bool = False,
) -> tuple[nn.Module, PixelConfig]:
    """The network of a name by whoever builds its kind, with weights that fit exactly or with random ones.

    Args:
        name: the network.
        weights: None for random ones.
        num_classes: of a network with random weights; weights bring their own.
        model_args: for the constructor.
        offline: look for the description of a hub's network on this machine only.

    Raises:
        UserError: it cannot be built, or the weights do not fit.
    """
    if name.factory:
        return factory_network(name, weights, num_classes, model_args)
    if name.name.startswith("tv:"):
        return torchvision_network(name, weights, num_classes, model_args)
    if name.name.startswith(NAMED):
        return searched_network(name, weights, num_classes, model_args)
    source = f"local-dir:{hub_folder(name, offline=offline)}" if name.kind == "hub" else name.tagged
    return timm_network(name, source, weights, num_classes, model_args)


def network_metadata(
    architecture: str, config: PixelConfig, model_args: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Metadata with which a safetensors file can be named alone: `create_network("run/model.safetensors")`.

    Args:
        architecture: the name of the architecture, without a weight file: `resnet50`, `tv:resnet18`.
        config: its preprocessing.
        model_args: what its constructor was given besides the number of classes; JSON values.
    """
    arguments = json.dumps(dict(model_args or {}))
    return {"architecture": architecture, "model_args": arguments, "pixels": pixels_to_json(config)}
