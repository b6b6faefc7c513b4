"""Networks whose features are matched: images in, the outputs of some of their layers out.

VGG19 with batch normalisation and ImageNet weights, all 16 ReLUs after its convolutions, is what strong tickets in
generators were found with (arXiv 2212.08311, after arXiv 1904.02762); besides any timm network, and for the embedded
digits a small network that is trained here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.models.zoo import AUTO, create_network
from vtk_cli.prune.digits_features import DIGITS, trained_digits_features
from vtk_cli.prune.keeping import ExtractorMode

VGG = "vgg19-bn"
_VGG_NETWORK = "tv:vgg19_bn"
_HASHED_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
"""How torchvision and timm name files: with the first digits of their SHA-256."""

Taps = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Preprocessing:
    """What an image in [-1, 1] becomes before the network: ((x + 1) / 2 - mean) / std.

    Args:
        mean, std: per channel, in units of pixels in [0, 1]; their number is that of the network's channels.
        side: what images are resized to (bilinear, antialiased); None leaves their size.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int | None = None


class Extractor(nn.Module):
    """A frozen network that gives features layer by layer.

    Args:
        name: what it is called in results.
        network: maps normalised images to the outputs of its layers, each (B, ...).
        preprocessing: what images become before.
        identity: JSON values that tell apart extractors with other features: weights, layers.
        mode: `eval`; or `train`, in which batch normalisation uses the statistics of each batch, so that features
            depend on its other images. Running statistics never change.
        layers: which of the network's layers are used, by number from 0; None: all.

    Raises:
        UserError: a layer is named twice or is negative.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        preprocessing: Preprocessing,
        identity: dict[str, Any],
        *,
        mode: ExtractorMode = "eval",
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if layers is not None and (not layers or min(layers) < 0 or len(set(layers)) < len(layers)):
            raise UserError(f"{list(layers)} are no distinct layers", "--extractor-layers", "number them from 0")
        self.name, self.mode, self.layers = name, mode, None if layers is None else tuple(sorted(layers))
        self.network = network.requires_grad_(requires_grad=False)
        self.side = preprocessing.side
        self.register_buffer("mean", torch.tensor(preprocessing.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std)[:, None, None], persistent=False)
        chosen = None if self.layers is None else list(self.layers)
        self.identity = {"name": name, "mode": mode, "layers": chosen, "side": self.side, **identity}
        self.train(mode=False)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Nothing changes: an extractor stays in the mode that it was made for."""
        super().train(mode=False)
        for module in self.network.modules() if self.mode == "train" else ():
            if isinstance(module, _BatchNorm):
                module.training, module.momentum = True, 0.0
        return self

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B, C, R, R) in [-1, 1] -> what the network sees; a single channel is repeated for one of three.

        Raises:
            ValueError: the network sees another number of channels.
        """
        channels = len(self.mean)
        if images.shape[1] == 1:
            images = images.expand(-1, channels, -1, -1)
        if images.shape[1] != channels:
            raise ValueError(f"{self.name} sees {channels} channels, the images have {images.shape[1]}")
        if self.side is not None and images.shape[-2:] != (self.side, self.side):
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        return ((images + 1) / 2 - self.mean) / self.std

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, R, R) in [-1, 1] -> the features of each layer in forward order, (B, ...) each.

        Raises:
            UserError: the network has not as many layers as are asked for.
        """
        outputs = list(cast("Taps", self.network)(self.normalise(images)))
        if self.layers is None:
            return outputs
        if self.layers[-1] >= len(outputs):
            what = f"{self.name} has no layer {self.layers[-1]}"
            raise UserError(what, "--extractor-layers", f"it has layers 0 to {len(outputs) - 1}")
        return [outputs[layer] for layer in self.layers]


class ReluTaps(nn.Module):
    """A chain of layers, run up to its last ReLU; the output of every ReLU is kept."""

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        layers = list(chain)
        last = max(number for number, layer in enumerate(layers) if isinstance(layer, nn.ReLU))
        self.chain = nn.Sequential(*layers[: last + 1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the ReLUs' outputs in forward order."""
        seen = []
        for layer in self.chain:
            if isinstance(layer, nn.ReLU):
                x = F.relu(x)  # not in place: what is kept may not be shared with what comes before
                seen.append(x)
            else:
                x = layer(x)
        return seen


class StageTaps(nn.Module):
    """A timm network's intermediate features, one a stage or block."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> each stage's features (B, C, H, W)."""
        intermediates: list[Tensor] = cast("Any", self.network).forward_intermediates(x, intermediates_only=True)
        return intermediates


def create_extractor(
    spec: str,
    *,
    image_size: int,
    channels: int,
    mode: ExtractorMode = "eval",
    layers: Sequence[int] | None = None,
    weights: str | Path = AUTO,
    offline: bool = False,
    device: torch.device,
    console: Console,
) -> Extractor:
    """Make the extractor that `spec` names.

    Args:
        spec: `vgg19-bn`, `digits-features` (trained here, in seconds), or a timm name; `NAME=FILE` gives a weight file.
        image_size: of the images, in pixels.
        channels: of the images.
        mode: see `Extractor`.
        layers: see `Extractor`.
        weights: for a network by name; see `zoo.create_network`.
        offline: look for published weights on this machine only.
        device: where it is put.
        console: shows the training of `digits-features`.

    Raises:
        NoWeights: its weights are not here and cannot be fetched.
        UserError: the name is unknown, the weights do not fit, are damaged, or the network gives no features.
    """
    if spec == DIGITS:
        trained = trained_digits_features(image_size, channels, device, console)
        identity = {"weights": trained.sha256, "channels": channels}
        half = (0.5,) * channels
        extractor = Extractor(DIGITS, trained.network, Preprocessing(half, half), identity, mode=mode, layers=layers)
        return extractor.to(device)
    name, _, file = spec.partition("=")
    if name == _VGG_NETWORK:  # as errors of its weights call it
        name, spec = VGG, VGG + spec.removeprefix(_VGG_NETWORK)
    if file:
        check_hash_in_name(Path(file).expanduser())
    network = create_network(
        _VGG_NETWORK + spec.removeprefix(VGG) if name == VGG else spec, weights=weights, offline=offline
    )
    config, identity = network.config, {"weights": network.weights_sha256}
    # VGG sees images in their own size: nothing but convolutions and pools comes before its last ReLU.
    before = Preprocessing(config.mean, config.std, None if name == VGG else config.input_size)
    taps: nn.Module = vgg_taps(network.module) if name == VGG else _stage_taps(network.module, config, spec)
    return Extractor(name, taps, before, identity, mode=mode, layers=layers).to(device)


def vgg_taps(network: nn.Module) -> ReluTaps:
    """The ReLUs after the convolutions of a VGG by torchvision or timm: 16 of VGG19."""
    return ReluTaps(cast("nn.Sequential", network.features))


def check_hash_in_name(path: Path) -> None:
    """Refuse a weight file whose name says another hash than its bytes have.

    Raises:
        UserError: it is another file, or only a part of it.
    """
    said = _HASHED_NAME.search(path.name)
    if said is None or not path.is_file():
        return
    found = sha256_file(path)
    if not found.startswith(said[1]):
        what = f"the SHA-256 of the file begins with {found[: len(said[1])]}, its name says {said[1]}"
        raise UserError(what, str(path), "fetch it anew")


def _stage_taps(module: nn.Module, config: PixelConfig, spec: str) -> StageTaps:
    if not hasattr(module, "forward_intermediates"):
        fix = "choose a timm network, e.g. resnet50, or vgg19-bn"
        raise UserError(f"{spec} does not give the features of its stages", "--extractor", fix)
    if len(config.mean) != 3:
        raise UserError(f"{spec} does not see three channels", "--extractor", "choose another network")
    return StageTaps(module)
