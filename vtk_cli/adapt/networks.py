"""The network that is adapted: backbone, bottleneck, weight-normed classifier (SHOT, arXiv 2002.08546, Section 3).

feature = backbone(images);  z = BatchNorm(W feature + b);  logits = g * v / |v| . z + b'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vtk_cli.adapt.backbones import DIGITS, Backbone, DigitsBackbone, TimmBackbone
from vtk_cli.adapt.domain_norm import one_domain, set_domain, with_domain_norm
from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.models.finetuning import starting_network
from vtk_cli.models.names import parse_network
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.models.zoo import SCRATCH

WIDTH, DIGITS_WIDTH = 256, 64
"""Length of the embedding, and that of the small network of digits."""


class Answer(NamedTuple):
    """What the network makes of B images.

    Args:
        logits: (B, C).
        embedding: (B, Z), what the classifier sees.
        stages: a map (B, c, h, w) of each stage of the backbone.
    """

    logits: Tensor
    embedding: Tensor
    stages: tuple[Tensor, ...]

    def first(self, count: int) -> Answer:
        """Of the first `count` images alone."""
        return Answer(self.logits[:count], self.embedding[:count], tuple(each[:count] for each in self.stages))


@dataclass(frozen=True)
class Origin:
    """What a network was made from.

    Args:
        architecture: the backbone's name without weights.
        pixels: the preprocessing that belongs to it.
        model_args: what its constructor was given besides the number of classes.
        weights_source: as `models.zoo.Network` has it.
    """

    architecture: str
    pixels: PixelConfig
    model_args: Mapping[str, Any] = field(default_factory=dict)
    weights_source: str = SCRATCH


class DomainNetwork(nn.Module):
    """Backbone F, bottleneck and classifier H.

    Args:
        backbone: with the weights to start from.
        classes: how many logits.
        width: length of the embedding.
        domain_norm: double every batch normalisation, that of the bottleneck too.
        origin: what the backbone was made from.
    """

    def __init__(
        self, backbone: Backbone, classes: int, *, width: int = WIDTH, domain_norm: bool = True, origin: Origin
    ) -> None:
        super().__init__()
        self.backbone: nn.Module = backbone
        self.bottleneck = nn.Linear(backbone.feature_dim, width)
        self.norm: nn.Module = nn.BatchNorm1d(width)
        self.head = weight_norm(nn.Linear(width, classes))
        self.classes, self.width, self.origin, self.domain_norm = classes, width, origin, domain_norm
        if domain_norm:
            self.backbone = with_domain_norm(self.backbone)
            self.norm = with_domain_norm(self.norm)

    @property
    def pixels(self) -> PixelConfig:
        """The preprocessing of its images."""
        return self.origin.pixels

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Of the maps in an `Answer`."""
        return cast("Backbone", self.backbone).stage_channels

    def forward(self, images: Tensor, domain: int | Tensor) -> Answer:
        """Answer for images of one domain.

        Args:
            images: (B, 3, S, S), normalised.
            domain: 0 (source) or 1 (target); or (B,), one for each image, all equal.

        Raises:
            ValueError: the batch is of both domains.
        """
        set_domain(self, one_domain(domain))
        feature, stages = self.backbone(images)
        embedding = self.norm(self.bottleneck(feature))
        return Answer(self.head(embedding), embedding, stages)

    def freeze_head(self) -> None:
        """Keep the classifier as it is from now on: the source hypothesis."""
        self.head.requires_grad_(requires_grad=False).eval()

    @property
    def is_head_frozen(self) -> bool:
        """Whether the classifier is kept as it is."""
        return not any(parameter.requires_grad for parameter in self.head.parameters())

    def train(self, mode: bool = True) -> DomainNetwork:
        """Training or eval mode; a frozen classifier stays in eval mode."""
        super().train(mode)
        if self.is_head_frozen:
            self.head.eval()
        return self


def build_network(
    spec: str,
    *,
    classes: int,
    console: Console,
    weights: str | Path = SCRATCH,
    model_args: Mapping[str, Any] | None = None,
    size: int | None = None,
    width: int | None = None,
    domain_norm: bool = True,
    offline: bool = False,
) -> DomainNetwork:
    """The network to train on the source; draws from torch's global generator.

    Args:
        spec: a timm network as `models.names.parse_network` reads it, or `digits-cnn`.
        classes: of the source.
        console: hears what of the weights could not be used.
        weights: `scratch`, `pretrained`, or a weight file, as `models.finetuning.starting_network` takes them.
        model_args: for the constructor.
        size: side of the images, where it is not that of the weights.
        width: of the embedding: 256, and 64 for `digits-cnn`, if None.
        domain_norm: a batch normalisation for each domain.
        offline: look for published weights on this machine only.

    Raises:
        NoWeights: there are no published weights, or none here and no network.
        UserError: an unknown network, one that gives no maps, or weights that do not fit.
    """
    if classes < 2:
        raise UserError(f"{classes} class is nothing to tell apart", "--source", "give a source with two or more")
    if spec == DIGITS:
        backbone, origin = _digits(size)
        return DomainNetwork(backbone, classes, width=width or DIGITS_WIDTH, domain_norm=domain_norm, origin=origin)
    name = parse_network(spec)
    if name.factory or name.name.startswith("tv:"):
        raise UserError("only timm's networks are adapted here", spec, "take e.g. resnet50, convnext_t, vit_s")
    found, _ = starting_network(
        name,
        weights=weights,
        num_classes=classes,
        model_args=dict(model_args or {}),
        img_size=size,
        console=console,
        offline=offline,
    )
    timm_backbone = TimmBackbone(found.module, spec, found.config.input_size)
    origin = Origin(name.name, found.config, dict(found.model_args), found.weights_source)
    return DomainNetwork(timm_backbone, classes, width=width or WIDTH, domain_norm=domain_norm, origin=origin)


def _digits(size: int | None) -> tuple[Backbone, Origin]:
    side = size or 32
    if side % 8:
        raise UserError(f"{DIGITS} takes no images of {side} pixels", "--size", "choose a multiple of 8")
    pixels = PixelConfig(side, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)
    return DigitsBackbone(side), Origin(DIGITS, pixels)
