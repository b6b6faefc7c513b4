"""Networks built by timm, by torchvision or by the user's own function, and filled with weights that must fit."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torchvision import models

from vtk_cli.errors import UserError
from vtk_cli.models.described_weights import no_larger_than, refuse_absurd
from vtk_cli.models.names import NetworkName
from vtk_cli.models.preprocessing import PixelConfig, luma, pixels_from_json, timm_pixels, torchvision_pixels
from vtk_cli.models.spaces.architecture import read_network_name
from vtk_cli.models.weights import NAME_ITS_ARCHITECTURE, head_classes, load_exactly, mismatch

_EVAL_CROP, _SMALL = 0.875, 64
"""Smaller images than this many pixels are evaluated whole."""
_NOT_FOR_FILES = {
    "num_classes",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "weights",
    "weights_backbone",
}
"""Arguments of the constructors that read or fetch other files, or that the weights decide."""


@dataclass(frozen=True)
class Weights:
    """Weights to fill a network with.

    Args:
        state: tensors by parameter name.
        path: the file they were read from.
        published: whether they are the published ones of the network's name; the user's own file otherwise.
        metadata: what the file says of itself.
    """

    state: dict[str, Tensor]
    path: Path
    published: bool
    metadata: Mapping[str, str]


def timm_network(
    name: NetworkName, source: str, weights: Weights | None, num_classes: int | None, model_args: Mapping[str, Any]
) -> tuple[nn.Module, PixelConfig]:
    """A timm network. Checkpoints in the formats of the original authors are converted as timm does.

    Args:
        name: what the user wrote.
        source: what timm calls it: `architecture.tag`, or `local-dir:FOLDER` of a hub repository.
        weights: None for random ones.
        num_classes: of a network with random weights, and of weights without a classifier, 0 for none; others bring
            their own.
        model_args: for the constructor; they win over those the weight file names.

    Raises:
        UserError: the weights do not fit, or the constructor does not take its arguments.
    """
    arguments = {"num_classes": num_classes, **stored_arguments(weights), **model_args}
    if weights is None:
        module = _random(name, source, arguments)
    elif weights.published:
        arguments["num_classes"] = None
        module = _filled(source, weights, {}, arguments)
    else:
        classes = head_classes(weights.state, timm_heads(name)) or num_classes
        arguments["num_classes"] = classes
        module = _filled(source, weights, {"num_classes": classes} if classes is not None else {}, arguments)
    return module, _own_pixels(weights) or timm_pixels(module, arguments, name.spec)


def torchvision_network(
    name: NetworkName, weights: Weights | None, num_classes: int | None, model_args: Mapping[str, Any]
) -> tuple[nn.Module, PixelConfig]:
    """A torchvision classifier; the arguments are those of `timm_network`.

    Raises:
        UserError: the weights do not fit.
    """
    architecture = name.name.removeprefix("tv:")
    entry = models.get_model_weights(architecture)[name.tag]
    arguments = {**stored_arguments(weights), **model_args}
    if weights is not None and weights.published:
        # Some constructors (GoogLeNet, Inception) treat the input otherwise when they are handed published weights.
        module = models.get_model(architecture, weights=entry, **arguments)
    else:
        classes = (head_classes(weights.state) if weights else None) or num_classes
        if classes is not None:
            arguments["num_classes"] = classes
        try:
            with _sized_by(weights):
                module = models.get_model(architecture, weights=None, **arguments)
        except (TypeError, ValueError) as error:
            raise UserError(f"cannot be built with {arguments} ({_described(error)})", name.spec) from error
        if weights is not None:
            load_exactly(module, weights.state, str(weights.path))
    return module, _own_pixels(weights) or torchvision_pixels(entry, arguments, name.spec)


def searched_network(
    name: NetworkName, weights: Weights | None, num_classes: int | None, model_args: Mapping[str, Any]
) -> tuple[nn.Module, PixelConfig]:
    """The network of an architecture of a search space; the arguments are those of `timm_network`.

    `drop_path_rate` is the one argument that it takes, and only networks of DARTS cells do. One that takes images of
    one channel makes them of three.

    Raises:
        UserError: it does not take its arguments, or the weights do not fit.
    """
    architecture = read_network_name(name.name)
    arguments = {key: value for key, value in {**stored_arguments(weights), **model_args}.items() if value is not None}
    drop_path = arguments.pop("drop_path_rate", 0.0)
    if arguments:
        raise UserError(f"takes no argument {', '.join(arguments)}", name.spec, "leave it out")
    classes = (head_classes(weights.state) if weights else None) or num_classes
    space, shape = architecture.space, architecture.shape(classes=classes)
    with _sized_by(weights):
        module: nn.Module = space.network(architecture.genes, shape, drop_path=float(drop_path))
    module.num_classes = shape.classes  # type: ignore[assignment]  # a number, which torch's types do not foresee
    if space.input_channels == 1:
        module.register_forward_pre_hook(_as_grey)
    if weights is not None:
        load_exactly(module, weights.state, str(weights.path))
    crop = _EVAL_CROP if shape.resolution > _SMALL else 1.0
    pixels = PixelConfig(shape.resolution, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, "bilinear", crop)
    return module, _own_pixels(weights) or pixels


def _as_grey(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    images = inputs[0]
    return (luma(images), *inputs[1:]) if images.shape[1] == 3 else None


def factory_network(
    name: NetworkName, weights: Weights | None, num_classes: int | None, model_args: Mapping[str, Any]
) -> tuple[nn.Module, PixelConfig]:
    """The network that the user's function `name.factory` returns.

    The function is called with `model_args`, and with `num_classes` where one is asked for. Its preprocessing is that
    of the network's `pretrained_cfg` dictionary, in timm's terms; timm's defaults (224 pixels, ImageNet's mean and
    deviation) for what that does not say.

    Raises:
        UserError: the function cannot be imported, fails, or returns no `torch.nn.Module`; the weights do not fit.
    """
    make = _imported(name)
    arguments = {**stored_arguments(weights), **model_args}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    try:
        module = make(**arguments)
    except Exception as error:  # the user's own code
        raise UserError(f"the function failed ({_described(error)})", name.spec, "mend it") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"the function returned a {type(module).__name__}", name.spec, "return a torch.nn.Module")
    if weights is not None:
        load_exactly(module, weights.state, str(weights.path))
    return module, _own_pixels(weights) or timm_pixels(module, arguments, name.spec)


def class_count(module: nn.Module) -> int:
    """How many logits a network gives: what it says itself, else the width of its last layer; 0 if it has none."""
    said = getattr(module, "num_classes", None)
    if isinstance(said, int):
        return said
    layers = [part for part in module.modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
    return layers[-1].weight.shape[0] if layers else 0


def timm_heads(name: NetworkName) -> tuple[str, ...]:
    """What a timm network calls its classifier: `('head',)`; empty where timm does not say."""
    config = get_pretrained_cfg(name.tagged) if name.kind != "hub" else None
    heads = config.classifier if config else None
    return (heads,) if isinstance(heads, str) else tuple(heads or ())


def stored_arguments(weights: Weights | None) -> dict[str, Any]:
    """What a weight file says its network's constructor was given besides the number of classes; mostly nothing.

    Raises:
        UserError: it says so in no JSON object, or names what would read or fetch other files.
    """
    text = weights.metadata.get("model_args", "{}") if weights else "{}"
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    where = str(weights.path) if weights else ""
    if not isinstance(found, dict):
        raise UserError("its metadata has model_args that are no JSON object", where, "write the file anew")
    if forbidden := _NOT_FOR_FILES & found.keys():
        raise UserError(f"its metadata may not set {', '.join(sorted(forbidden))}", where, "write the file anew")
    refuse_absurd(found, Path(where))
    return found


@contextmanager
def _sized_by(weights: Weights | None) -> Iterator[None]:
    """Where a network is built: the user's own file may not ask for one that it cannot fill."""
    if weights is None or weights.published:
        yield
    else:
        with no_larger_than(weights.path):
            yield


def _random(name: NetworkName, source: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        module: nn.Module = timm.create_model(source, **arguments)
    except Exception as error:  # architectures refuse arguments in as many ways as there are
        given = {key: value for key, value in arguments.items() if value is not None}
        raise UserError(f"cannot be built with {given} ({_described(error)})", name.spec) from error
    return module


def _filled(source: str, weights: Weights, overlay: Mapping[str, Any], arguments: Mapping[str, Any]) -> nn.Module:
    """The timm network `source` with `weights`, which pass through timm's own conversion of foreign formats."""
    overlay = {**overlay, "source": None, "state_dict": weights.state}
    try:
        with _sized_by(weights):
            module = timm.create_model(source, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    except UserError:
        raise
    except Exception as error:  # a conversion may stumble anywhere over tensors it did not expect
        what = _misfit(source, weights, arguments) or f"the weights cannot be used ({_described(error)})"
        raise UserError(what, str(weights.path), NAME_ITS_ARCHITECTURE) from error
    module.pretrained_cfg.pop("state_dict", None)  # else the network would carry its weights twice
    filled: nn.Module = module
    return filled


def _misfit(source: str, weights: Weights, arguments: Mapping[str, Any]) -> str:
    """How `weights` differ from what the timm network needs; empty if they do not, or it cannot be built at all."""
    try:
        with _sized_by(weights):
            return mismatch(timm.create_model(source, **arguments), weights.state)
    except Exception:  # noqa: BLE001 - arguments it does not take: the caller says what was wrong first
        return ""


def _own_pixels(weights: Weights | None) -> PixelConfig | None:
    text = weights.metadata.get("pixels") if weights else None
    return pixels_from_json(text, weights.path) if weights and text else None


def _imported(name: NetworkName) -> Any:
    module_name, _, function = name.factory.partition(":")
    try:
        with _working_folder_importable():
            module = importlib.import_module(module_name)
    except Exception as error:  # the user's own code
        fix = "run from the folder that holds the module, or install it"
        raise UserError(f"{module_name} cannot be imported ({_described(error)})", name.spec, fix) from error
    make = getattr(module, function, None)
    if not callable(make):
        raise UserError(f"{module_name} has no function {function!r}", name.spec, "check the name")
    return make


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
