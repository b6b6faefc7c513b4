"""Every size of ViDT (arXiv 2110.03921, Table 1) and ViDT+ (arXiv 2204.07962) by name, and what a size consists of.

`vidt-SIZE` is ViDT, `vidt-plus-SIZE` ViDT+, `vidt-neck-free-SIZE` the backbone with heads alone; SIZE is nano, tiny,
small or base as published, or `micro`, which learns 128-pixel scenes on a CPU in minutes. In place of its Swin a
detector with a neck may have any network with feature maps.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vtk_cli.errors import UserError, nearest

Neck = Literal["projection", "epff", "none"]


@dataclass(frozen=True)
class BackboneConfig:
    """A Swin transformer (arXiv 2103.14030); stage i has width C * 2^i and stride 4 * 2^i.

    Args:
        name: `swin_nano`, ...
        width: C.
        depths: blocks of each of the four stages.
        heads: attention heads of each stage.
        window: side of an attention window, in cells.
        drop_path: stochastic depth of the last block; it grows linearly from 0.
        shrink_window: a window is cut to a side of the map that is no longer, along which it is then not shifted; else
            the map is padded to a window.
    """

    name: str
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7
    drop_path: float = 0.0
    shrink_window: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))


@dataclass(frozen=True)
class FeatureBackboneConfig:
    """A network of feature maps, which DET tokens pass by.

    Args:
        name: its architecture, as `models.names.parse_architecture` reads it.
        model_args: what its constructor was given, a JSON object.
        mean, std: of the pixels that it was made for, per channel, in units of pixels in [0, 1].
        kind: tells it from a Swin in files.
    """

    name: str
    model_args: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind: Literal["feature-maps"] = "feature-maps"


@dataclass(frozen=True)
class DetectorConfig:
    """A detector.

    Args:
        backbone: the Swin transformer that carries the DET tokens, or a network that they pass by.
        classes: K.
        queries: Q, the number of DET tokens.
        dim: D, the width of neck and decoder, and of the DET tokens' positions.
        groups: of the group norms.
        neck: `projection` (ViDT), `epff` (ViDT+: efficient pyramid feature fusion), or `none`: heads on the DET tokens
            and no decoder.
        cross_stages: the stages of a Swin, from 0, in which DET tokens attend to patches.
        decoder_layers, decoder_heads, points, ffn, dropout: the deformable decoder.
        refine: each layer refines the boxes of the one before it, with its own heads; else all share one head.
        aux: every level is trained; else the last alone.
        iou_aware: a head predicts each box's IoU with its object.
        token_labels: a head classifies each cell of the feature maps, in training.
        token_offset: class k is channel k + `token_offset` of the token head; channel 0 is "any object". 1; 0 where
            labels are COCO's category ids, which leave 0 free.
        mask_coefficients: length of a mask's code (unified query representation); 0: no masks.
    """

    backbone: BackboneConfig | FeatureBackboneConfig
    classes: int
    queries: int = 100
    dim: int = 256
    groups: int = 32
    neck: Neck = "projection"
    cross_stages: tuple[int, ...] = (3,)
    decoder_layers: int = 6
    decoder_heads: int = 8
    points: int = 4
    ffn: int = 1024
    dropout: float = 0.1
    refine: bool = True
    aux: bool = True
    iou_aware: bool = False
    token_labels: bool = False
    token_offset: int = 1
    mask_coefficients: int = 0

    @property
    def token_channels(self) -> int:
        """How many channels the token head has."""
        return self.classes + self.token_offset

    @property
    def levels(self) -> int:
        """How many levels predict: the body and every decoder layer."""
        return 1 if self.neck == "none" else 1 + self.decoder_layers

    def box_only(self) -> DetectorConfig:
        """The same detector without the heads that box inference does not need."""
        return replace(self, iou_aware=False, token_labels=False, mask_coefficients=0)


@dataclass(frozen=True)
class Classes:
    """What the labels 0..K-1 mean.

    Args:
        names: by label.
        category_ids: by label, the ids of the data file.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]


BACKBONES: Mapping[str, BackboneConfig] = {
    "nano": BackboneConfig("swin_nano", 48, (2, 2, 6, 2), (3, 6, 12, 24)),
    "tiny": BackboneConfig("swin_tiny", 96, (2, 2, 6, 2), (3, 6, 12, 24), drop_path=0.2),
    "small": BackboneConfig("swin_small", 96, (2, 2, 18, 2), (3, 6, 12, 24), drop_path=0.3),
    "base": BackboneConfig("swin_base", 128, (2, 2, 18, 2), (4, 8, 16, 32), drop_path=0.3),
    "micro": BackboneConfig("swin_micro", 16, (1, 1, 1, 1), (2, 2, 4, 4), window=4, shrink_window=True),
}
TIMM_BACKBONES: Mapping[str, str] = {
    "swin_tiny": "swin_tiny_patch4_window7_224.ms_in1k",
    "swin_small": "swin_small_patch4_window7_224.ms_in1k",
    "swin_base": "swin_base_patch4_window7_224.ms_in22k",
}
"""Backbone -> the timm network whose published weights it starts from; `swin_nano` has only its own files."""

_MICRO: Mapping[str, Any] = {
    "queries": 20,
    "dim": 64,
    "groups": 16,
    "decoder_layers": 2,
    "decoder_heads": 4,
    "ffn": 256,
    "dropout": 0.0,
}
_PLUS: Mapping[str, Any] = {
    "neck": "epff",
    "queries": 300,
    "iou_aware": True,
    "token_labels": True,
    "mask_coefficients": 256,
}
_PLUS_MICRO: Mapping[str, Any] = {**_PLUS, "queries": 20, "mask_coefficients": 0}
_FAMILIES: Mapping[str, Mapping[str, Any]] = {"vidt": {}, "vidt-plus": _PLUS, "vidt-neck-free": {"neck": "none"}}

DETECTORS: tuple[str, ...] = tuple(f"{family}-{size}" for family in _FAMILIES for size in BACKBONES)
"""The names `detector_config` knows."""


def detector_config(name: str, classes: int, **changes: Any) -> DetectorConfig:
    """The configuration called `name`.

    Args:
        name: one of `DETECTORS`.
        classes: K, at least 1.
        changes: fields of `DetectorConfig` that differ from the published ones.

    Raises:
        UserError: there is no such detector.
    """
    if name not in DETECTORS:
        raise UserError(
            f"unknown detector {name!r}", fix=nearest(name, DETECTORS) or f"there are {', '.join(DETECTORS)}"
        )
    family, _, size = name.rpartition("-")
    of_size = _MICRO if size == "micro" else {}
    of_family = _PLUS_MICRO if size == "micro" and family == "vidt-plus" else _FAMILIES[family]
    given = {"backbone": BACKBONES[size], "classes": classes, **of_size, **of_family, **changes}
    return DetectorConfig(**given)


def config_to_json(config: DetectorConfig) -> dict[str, Any]:
    """`config` as values of JSON; `config_from_json` reads them back."""
    return asdict(config)


def config_from_json(values: Mapping[str, Any]) -> DetectorConfig:
    """What `config_to_json` wrote, after JSON.

    Raises:
        ValueError: a field is missing or unknown, or of another type.
    """
    try:
        checked = _checked(DetectorConfig, {**values, "backbone": None})
        backbone = values["backbone"]
        kind = FeatureBackboneConfig if "kind" in backbone else BackboneConfig
        return DetectorConfig(**{**checked, "backbone": kind(**_checked(kind, backbone))})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no detector configuration: {error}") from error


def _checked(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` for the fields of a dataclass, lists as tuples; TypeError where one is of another type."""
    hints = typing.get_type_hints(kind)
    checked = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in checked.items():
        hint = hints.get(name, type(None))
        options, parts = typing.get_args(hint), value if isinstance(value, tuple) else ()
        if name == "backbone":
            continue
        of_parts = Ellipsis in options
        fits = value in options if options and not of_parts else type(value) is (tuple if options else hint)
        if not fits or any(type(part) is not options[0] for part in parts):
            raise TypeError(f"{name} cannot be {value!r}")
    return checked
