"""The video networks by name, and what each is. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from vtk_cli.errors import UserError, nearest

Family = Literal["slow", "torchvision", "c3d", "timesformer", "motionformer", "xvit"]

IMAGE_VIT = "vit_base_patch16_224.orig_in21k_ft_in1k"
"""The image network whose weights arXiv 2207.09067 starts from: ImageNet-21k, then fine-tuned on ImageNet-1k."""
TRANSFORMERS = ("timesformer", "motionformer", "xvit")
"""Families that give tokens, and that take the size of any plain timm ViT as `FAMILY:VIT`."""


@dataclass(frozen=True)
class BackboneEntry:
    """A video network that users can name.

    Args:
        name: what users type.
        what: what it is, in a line.
        family: how it is built.
        frames: of the clips it takes where nothing is said.
        side: of those clips, in pixels.
        image_vit: timm's name of the image network of its size, whose weights it can start from; empty for none.
    """

    name: str
    what: str
    family: Family
    frames: int = 8
    side: int = 224
    image_vit: str = ""

    @property
    def has_tokens(self) -> bool:
        """Whether it gives a token for every patch of every frame, as the temporal losses need."""
        return self.family in TRANSFORMERS


_ENTRIES = (
    BackboneEntry("slow_r50", "ResNet-50 with temporal kernels in its last two stages (SlowOnly)", "slow"),
    BackboneEntry("slow_r18", "the same of a ResNet-18", "slow"),
    BackboneEntry("r3d_18", "torchvision's ResNet-18 of 3D convolutions", "torchvision", frames=16, side=112),
    BackboneEntry("r2plus1d_18", "torchvision's R(2+1)D of 18 layers", "torchvision", frames=16, side=112),
    BackboneEntry("s3d", "torchvision's separable 3D Inception", "torchvision", frames=16),
    BackboneEntry(
        "mvit_v2_s", "torchvision's multiscale vision transformer, version 2, small", "torchvision", frames=16
    ),
    BackboneEntry("c3d_tiny", "three 3D convolutions, for clips of 8 x 24 x 24 on a CPU", "c3d", side=24),
    BackboneEntry("timesformer", "divided space-time attention, ViT-B/16", "timesformer", image_vit=IMAGE_VIT),
    BackboneEntry(
        "timesformer_tiny", "the same, 2 blocks of width 32, for clips of 8 x 24 x 24", "timesformer", side=24
    ),
    BackboneEntry("motionformer", "trajectory attention, ViT-B/16", "motionformer", image_vit=IMAGE_VIT),
    BackboneEntry("xvit", "space-time mixing by shifted keys and values, ViT-B/16", "xvit", image_vit=IMAGE_VIT),
)

BACKBONES = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Every network by name. `timesformer:VIT`, `motionformer:VIT` and `xvit:VIT` are known too, for any plain timm ViT."""


def backbone_entry(name: str) -> BackboneEntry:
    """What `name` stands for; timm itself is not asked here whether it knows the ViT of `FAMILY:VIT`.

    Raises:
        UserError: nothing is known by that name.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    family, colon, image_vit = name.partition(":")
    if colon and image_vit and family in TRANSFORMERS:
        what = f"{BACKBONES[family].what.rpartition(',')[0]}, {image_vit}"
        return replace(BACKBONES[family], name=name, what=what, image_vit=image_vit)
    known = nearest(name, BACKBONES) or f"known are {', '.join(BACKBONES)}, and timesformer:VIT of any timm ViT"
    raise UserError(f"unknown video network {name!r}", fix=known)
