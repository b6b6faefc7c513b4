"""Networks that give feature maps, for detectors and segmenters to build on.

A timm network gives them by timm's `features_only`; any other by what it says of itself: an attribute `feature_info`,
(channels, stride) of each of its maps, and a method `feature_maps`, images (B, 3, H, W) to those maps.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from timm.models._hub import load_model_config_from_path
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.console import Console
from vtk_cli.engine.seeds import preserved_rng
from vtk_cli.errors import UserError
from vtk_cli.models.architectures import Weights, stored_arguments
from vtk_cli.models.finetuning import starting_network
from vtk_cli.models.names import NetworkName, may_not_be_named, parse_architecture, parse_network
from vtk_cli.models.preprocessing import PixelConfig, timm_pixels
from vtk_cli.models.published import hub_folder
from vtk_cli.models.spaces.stand_alone import FeatureMap
from vtk_cli.models.zoo import AUTO, PRETRAINED, SCRATCH, create_network

STRIDES = (8, 16, 32)
_SIZES = ((64, 96), (160, 128))
"""Height and width of the images on which a network is tried; multiples of every stride."""
_ADVICE = "take a ResNet, a ConvNeXt, a Swin, ..."
_SHOWN = 80
"""Of an error of timm's, characters."""


class FeatureMaps(nn.Module, ABC):
    """A network as the maps that were asked of it.

    Args:
        body: the network.
        feature_info: of the maps, the finest first.
    """

    def __init__(self, body: nn.Module, feature_info: Sequence[FeatureMap]) -> None:
        super().__init__()
        self.body = body
        self.feature_info = tuple(feature_info)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The maps that `feature_info` describes.

        Networks differ in what they do with sides that their strides do not divide, so the images are padded with
        zeros to whole cells of the coarsest map, and every map is cut to the cells that see a part of an image.

        Args:
            images: (B, 3, H, W).

        Returns:
            (B, channels, ceil(H / stride), ceil(W / stride)) for each.
        """
        H, W = images.shape[-2:]
        coarsest = max(info.stride for info in self.feature_info)
        down, right = -H % coarsest, -W % coarsest
        maps = self._whole(F.pad(images, (0, right, 0, down)) if down or right else images)
        if not (down or right):
            return maps
        strides = [info.stride for info in self.feature_info]
        return [each[..., : -(-H // s), : -(-W // s)] for each, s in zip(maps, strides, strict=True)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """`feature_maps`."""
        return self.feature_maps(images)

    def recompute(self) -> None:
        """Compute activations anew in the backward pass, to save memory.

        Raises:
            UserError: the network does not offer it.
        """
        try:
            self._offering().set_grad_checkpointing(enable=True)  # type: ignore[operator]
        except (AttributeError, AssertionError, TypeError) as error:
            what = f"{type(self._offering()).__name__} does not offer to compute its activations again"
            raise UserError(what, "--grad-checkpointing", "leave it out") from error

    def _offering(self) -> nn.Module:
        return self.body

    @abstractmethod
    def _whole(self, images: Tensor) -> list[Tensor]:
        """The maps of images whose sides the coarsest stride divides."""


class TimmFeatureMaps(FeatureMaps):
    """A timm network made with `features_only`."""

    def _whole(self, images: Tensor) -> list[Tensor]:
        maps: Sequence[Tensor] = self.body(images)
        layout = getattr(self.body, "output_fmt", None)
        if layout is not None and layout.value == "NHWC":
            return [each.permute(0, 3, 1, 2).contiguous() for each in maps]
        return list(maps)

    def _offering(self) -> nn.Module:
        getter = getattr(self.body, "model", None)  # FeatureGetterNet holds the network itself
        return getter if isinstance(getter, nn.Module) else self.body


class OwnFeatureMaps(FeatureMaps):
    """Some of the maps of a network with `feature_info` and `feature_maps`.

    Args:
        body: the network.
        chosen: where the maps stand in its `feature_info`, the finest first.
    """

    def __init__(self, body: nn.Module, chosen: Sequence[int]) -> None:
        infos = [FeatureMap(*info) for info in body.feature_info]  # type: ignore[union-attr]  # checked by the caller
        super().__init__(body, [infos[index] for index in chosen])
        self.chosen = tuple(chosen)

    def _whole(self, images: Tensor) -> list[Tensor]:
        maps: Sequence[Tensor] = self.body.feature_maps(images)  # type: ignore[operator]  # checked by the caller
        return [maps[index] for index in self.chosen]


@dataclass(frozen=True)
class FeatureNetwork:
    """A network of feature maps, ready to use.

    Args:
        module: in eval mode, on the CPU; what none of its maps depends on does not learn.
        architecture: what it is, without weights, as `parse_architecture` reads it.
        model_args: what its constructor was given, JSON values.
        config: the preprocessing that belongs to its weights.
        weights_source: `scratch`, `file: PATH`, `cache: WHERE`, `download: WHERE`, or `factory`.
    """

    module: FeatureMaps
    architecture: str
    model_args: Mapping[str, Any]
    config: PixelConfig
    weights_source: str


def feature_network(
    spec: str | NetworkName,
    *,
    weights: str | Path = SCRATCH,
    model_args: Mapping[str, Any] | None = None,
    strides: Sequence[int] = STRIDES,
    offline: bool = False,
) -> FeatureNetwork:
    """The network that `spec` names, as its feature maps of these strides for images of any size.

    Args:
        spec: a name as `parse_network` reads it.
        weights: as `finetuning.starting_network` takes them: `scratch` (the file's of `NAME=FILE`), `pretrained`, or a
            weight file; a classifier in it is left out.
        model_args: for the constructor; they win over those a weight file names.
        strides: of the maps, the finest first.
        offline: look for published weights on this machine only.

    Raises:
        NoWeights: there are no published weights, or none here and no network.
        UserError: an unknown name, a network without such maps or for images of one size, weights that do not fit.
    """
    name = parse_network(spec) if isinstance(spec, str) else spec
    if name.name.startswith("tv:"):
        raise UserError("networks of torchvision give no feature maps here", name.spec, "take timm's, e.g. resnet50")
    make = _from_timm if _is_timm(name) else _from_itself
    found = make(name, weights, dict(model_args or {}), tuple(strides), offline=offline)
    _refuse_or_prepare(found.module, name)
    return found


def has_published_weights(name: NetworkName) -> bool:
    """Whether somebody publishes weights for the network; nothing is fetched."""
    config = get_pretrained_cfg(name.tagged) if name.kind == "timm" else None
    return name.kind in ("hub", "torchvision") or (config is not None and bool(config.hf_hub_id or config.url))


def require_nameable(architecture: str, model_args: str, path: Path) -> None:
    """Refuse what a weight file may not say: it must not choose what code runs, or what is read or fetched.

    Args:
        architecture: as `FeatureNetwork` has it.
        model_args: its arguments as JSON.
        path: the weight file.

    Raises:
        UserError: it says so, or what it names is not known here.
    """
    if may_not_be_named(architecture):
        raise UserError(f"may not name the architecture {architecture!r} itself", str(path), "train it on a timm name")
    try:
        parse_architecture(architecture)
    except UserError as error:
        raise UserError(f"is for the unknown architecture {architecture!r}", str(path), "update timm") from error
    stored_arguments(Weights({}, path, published=False, metadata={"model_args": model_args}))


def _is_timm(name: NetworkName) -> bool:
    return not name.factory and ":" not in name.name


def _from_timm(
    name: NetworkName, weights: str | Path, arguments: dict[str, Any], strides: tuple[int, ...], *, offline: bool
) -> FeatureNetwork:
    architecture, tagged = name.name, name.tagged
    if name.kind == "hub":
        _, architecture, given = load_model_config_from_path(hub_folder(name, offline=offline))
        arguments, tagged = {**(given or {}), **arguments}, architecture
    if weights == SCRATCH and name.path is None:
        module = _timm_maps(name, tagged, arguments, strides)
        config = timm_pixels(module.body, arguments, name.spec)
        return FeatureNetwork(module.eval(), architecture, arguments, config, SCRATCH)
    if weights == PRETRAINED:  # a network that will not do is not fetched
        _refuse_or_prepare(_timm_maps(name, tagged, arguments, strides), name)
    whole, _ = starting_network(
        name,
        weights=weights,
        num_classes=1,  # of a classifier that is not used
        model_args=arguments,
        img_size=None,
        console=Console(quiet=True),
        offline=offline,
    )
    arguments = dict(whole.model_args)
    module = _timm_maps(name, tagged, arguments, strides)
    _fill(module.body, whole.module.state_dict())
    return FeatureNetwork(module.eval(), architecture, arguments, whole.config, whole.weights_source)


def _from_itself(
    name: NetworkName, weights: str | Path, arguments: dict[str, Any], strides: tuple[int, ...], *, offline: bool
) -> FeatureNetwork:
    """A network that is no timm's, as whoever builds its kind makes it."""
    source = AUTO if weights == SCRATCH and name.path is not None else weights
    whole = create_network(name, weights=source, offline=offline, **arguments)
    body = whole.module
    infos = getattr(body, "feature_info", None)
    if not isinstance(infos, Sequence) or not callable(getattr(body, "feature_maps", None)):
        what = f"a {type(body).__name__} gives no feature maps"
        raise UserError(what, name.spec, "give it `feature_info` and `feature_maps`")
    chosen = _positions([int(stride) for _, stride in infos], strides, name)
    architecture = f"py:{name.factory}" if name.factory else name.name
    module = OwnFeatureMaps(body, chosen).eval()
    return FeatureNetwork(module, architecture, dict(whole.model_args), whole.config, whole.weights_source)


def _positions(have: Sequence[int], wanted: Sequence[int], name: NetworkName) -> list[int]:
    """Where the last map of each stride stands.

    Raises:
        UserError: there is none of a stride.
    """
    at = {stride: index for index, stride in enumerate(have)}
    if not at.keys() >= set(wanted):
        shown = ", ".join(map(str, have))
        what = f"has feature maps of strides {shown}, and not of {', '.join(map(str, wanted))}"
        raise UserError(what, name.spec, _ADVICE)
    return [at[stride] for stride in wanted]


def _timm_maps(
    name: NetworkName, tagged: str, arguments: Mapping[str, Any], strides: tuple[int, ...]
) -> TimmFeatureMaps:
    """The network with random weights; one for images of a fixed size is told to take others."""
    given = dict(arguments)
    config = get_pretrained_cfg(tagged)
    if config is not None and config.fixed_input_size and _builds(tagged, {**given, "strict_img_size": False}):
        given["strict_img_size"] = False
    try:
        with preserved_rng(), torch.device("meta"):
            info = timm.create_model(tagged, features_only=True, **given).feature_info
    except Exception as error:  # architectures say in as many ways as there are that they have no maps
        raise UserError(f"gives no feature maps ({_reason(error)})", name.spec, _ADVICE) from error
    chosen = tuple(info.out_indices[index] for index in _positions(info.reduction(), strides, name))
    body = timm.create_model(tagged, features_only=True, out_indices=chosen, **given)
    made = [FeatureMap(*pair) for pair in zip(body.feature_info.channels(), body.feature_info.reduction(), strict=True)]
    return TimmFeatureMaps(body, made)


def _builds(tagged: str, arguments: Mapping[str, Any]) -> bool:
    try:
        with preserved_rng(), torch.device("meta"):
            timm.create_model(tagged, features_only=True, **arguments)
    except Exception:  # noqa: BLE001 - an argument that it does not take
        return False
    return True


def _fill(body: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a classifier's tensors into its feature network, where `layers.0` may be `layers_0` or `model.layers.0`."""
    by_name = {name.replace(".", "_"): tensor for name, tensor in state.items()}
    filled = {}
    for name in body.state_dict():
        inner = name.partition(".")[2]
        filled[name] = by_name[key if (key := name.replace(".", "_")) in by_name else inner.replace(".", "_")]
    body.load_state_dict(filled)


def _refuse_or_prepare(module: FeatureMaps, name: NetworkName) -> None:
    """Try the network, without computing anything: what its maps do not depend on is not to learn.

    Several processes that train together wait for the gradient of everything that learns.

    Raises:
        UserError: it takes no images of any size, or its maps are of other sizes than they should be.
    """
    trial = copy.deepcopy(module).to("meta")
    for H, W in _SIZES:
        try:
            with preserved_rng():
                maps = trial.feature_maps(torch.zeros(2, 3, H, W, device="meta"))
        except Exception as error:  # architectures refuse sizes in as many ways as there are
            what = f"takes no images of any size: none of {H} x {W} pixels"
            raise UserError(f"{what} ({_reason(error)})", name.spec, _ADVICE) from error
        wanted = [(2, info.channels, H // info.stride, W // info.stride) for info in module.feature_info]
        if [tuple(each.shape) for each in maps] != wanted:
            sizes = ", ".join(f"{each.shape[-2]} x {each.shape[-1]}" for each in maps)
            what = f"its maps of {H} x {W} pixels are {sizes}: they are not of whole strides"
            raise UserError(what, name.spec, _ADVICE)
    torch.stack([each.sum() for each in maps]).sum().backward()
    for parameter, tried in zip(module.parameters(), trial.parameters(), strict=True):
        if tried.grad is None:
            parameter.requires_grad = False


def _reason(error: Exception) -> str:
    return shorten(str(error), _SHOWN, placeholder=" ...") or type(error).__name__
