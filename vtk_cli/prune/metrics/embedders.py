"""From 8-bit images to features: the network, its weights, and the preprocessing that belongs to both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.files import content_key
from vtk_cli.models.zoo import create_network
from vtk_cli.prune.metrics.catalog import DIGITS, INCEPTION, RESIZES, Resize
from vtk_cli.prune.metrics.digits_cnn import FEATURES as DIGITS_FEATURES
from vtk_cli.prune.metrics.digits_cnn import trained_classifier
from vtk_cli.prune.metrics.inception import FEATURES as INCEPTION_FEATURES
from vtk_cli.prune.metrics.inception import FILE, SHA256, SIDE, load_inception
from vtk_cli.prune.metrics.resizing import resized

_LARGEST_DIGITS = 32


@dataclass(frozen=True)
class Embedding:
    """What an embedder makes of B images.

    Args:
        features: (B, D) float32, on the CPU.
        probabilities: (B, K) float32 of the classes, on the CPU; None where the embedder is no classifier.
    """

    features: Tensor
    probabilities: Tensor | None


@dataclass(frozen=True, eq=False)
class Embedder:
    """Makes features of images.

    Args:
        name: `inception`, `digits-cnn` or the timm network.
        sha256: of its weights.
        resize: how images come to its size.
        side: its size, in pixels.
        dimension: how many features.
        network: (B, C, side, side) float32, as `normalise` makes it -> features (B, D); in eval mode.
        normalise: (B, C', side, side) float32 in 0..255 -> what the network takes.
        classify: features (B, D) -> logits (B, K); None where it is no classifier.
        device: where it computes.
    """

    name: str
    sha256: str
    resize: Resize
    side: int
    dimension: int
    network: nn.Module
    normalise: Callable[[Tensor], Tensor]
    classify: Callable[[Tensor], Tensor] | None
    device: torch.device

    @property
    def distance(self) -> str:
        """What its Frechet distance may be called: `FID` for Inception alone, else `FD(name)`."""
        return "FID" if self.name == INCEPTION else f"FD({self.name})"

    @property
    def kernel_distance(self) -> str:
        """What its kernel distance may be called: `KID` for Inception alone, else `KD(name)`."""
        return "KID" if self.name == INCEPTION else f"KD({self.name})"

    @property
    def key(self) -> str:
        """Another network, other weights or another preprocessing: another key."""
        return content_key({"name": self.name, "sha256": self.sha256, "resize": self.resize, "side": self.side})

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Embedding:
        """Embed (B, C, H, W) uint8 images, C 1 or 3; grey ones are repeated where colour is expected.

        Raises:
            ValueError: they are not uint8, or have neither one channel nor three.
        """
        if images.ndim != 4 or images.shape[1] not in {1, 3}:
            raise ValueError(f"images of shape {tuple(images.shape)}: expected (B, 1 or 3, H, W)")
        inputs = self.normalise(resized(images, self.side, self.resize).to(self.device))
        features = self.network(inputs)
        probabilities = None if self.classify is None else self.classify(features).softmax(dim=1).cpu()
        return Embedding(features.float().cpu(), probabilities)


def open_embedder(
    name: str,
    *,
    image_side: int,
    inception: Path | None = None,
    resize: Resize = "clean",
    allow_fallback: bool = False,
    offline: bool = False,
    device: torch.device,
    console: Console,
) -> Embedder:
    """The embedder called `name`.

    Args:
        name: `inception`, `digits-cnn` or a timm network.
        image_side: of the images to be embedded, in pixels; `digits-cnn` is trained at it, up to 32.
        inception: the weight file of `inception`.
        resize: how images come to the network's size.
        allow_fallback: take `digits-cnn`, with a warning, where `inception` has no file or a wrong one.
        offline: look for published weights on this machine only.
        device: where it computes.
        console: told of the fallback and of trainings.

    Raises:
        UserError: an unknown name or way of resizing, a missing or wrong weight file, or a network that is none of
            timm's.
        NoWeights: published weights that are not on this machine, and no network.
    """
    if resize not in RESIZES:
        raise UserError(f"{resize!r} is no way of resizing", "--resize", f"there are {', '.join(RESIZES)}")
    if name == DIGITS:
        return _digits(image_side, resize, device, console)
    if name != INCEPTION:
        return _timm(name, resize, device, offline=offline)
    try:
        return _inception(inception, resize, device)
    except UserError as error:
        if not allow_fallback:
            fix = f"{error.fix}, or let --allow-fallback print FD({DIGITS}) instead"
            raise UserError(error.what, error.where, fix) from error
        console.warn(f"{error}; FD({DIGITS}) is measured instead, which is no FID")
        return _digits(image_side, resize, device, console)


def _inception(path: Path | None, resize: Resize, device: torch.device) -> Embedder:
    """Inputs as the tools whose way of resizing it is: pytorch-fid's 2 x / 255 - 1, clean-fid's (x - 128) / 128."""
    if path is None:
        raise UserError("FID needs the weights of Inception", "--inception", f"give {FILE} as pytorch-fid publishes it")
    network = load_inception(path)
    shift, scale = (128.0, 128.0) if resize == "clean" else (127.5, 127.5)
    return Embedder(
        name=INCEPTION,
        sha256=SHA256,
        resize=resize,
        side=SIDE,
        dimension=INCEPTION_FEATURES,
        network=network.to(device),
        normalise=lambda pixels: (_coloured(pixels) - shift) / scale,
        classify=None,
        device=device,
    )


def _digits(image_side: int, resize: Resize, device: torch.device, console: Console) -> Embedder:
    side = min(image_side, _LARGEST_DIGITS)
    trained = trained_classifier(side, device, console)
    return Embedder(
        name=DIGITS,
        sha256=trained.sha256,
        resize=resize,
        side=side,
        dimension=DIGITS_FEATURES,
        network=trained.network,
        normalise=lambda pixels: pixels.mean(dim=1, keepdim=True) / 127.5 - 1,
        classify=trained.network.classify,
        device=device,
    )


class _Pooled(nn.Module):
    """A timm network up to the features that its classifier is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D)."""
        pooled: Tensor = self.network.forward_head(self.network.forward_features(images), pre_logits=True)
        return pooled.flatten(1)


def _timm(name: str, resize: Resize, device: torch.device, *, offline: bool) -> Embedder:
    """A timm network: the whole image at its own size, with its own mean and standard deviation."""
    made = create_network(name, offline=offline)
    if not hasattr(made.module, "forward_head"):
        raise UserError("does not tell its features from its classes", name, "choose one of timm's networks")
    network = _Pooled(made.module).to(device).eval().requires_grad_(requires_grad=False)
    side = made.config.input_size
    with torch.no_grad():
        dimension = network(torch.zeros(1, 3, side, side, device=device)).shape[1]
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in (made.config.mean, made.config.std)
    )
    return Embedder(
        name=made.name.spec,
        sha256=made.weights_sha256,
        resize=resize,
        side=side,
        dimension=dimension,
        network=network,
        normalise=lambda pixels: (_coloured(pixels) - mean) / std,
        classify=None,
        device=device,
    )


def _coloured(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1)
