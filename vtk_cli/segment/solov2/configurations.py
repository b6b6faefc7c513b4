"""Every size of SOLOv2 (arXiv 2003.10152) by name, and what a size consists of.

`solov2-r50`, `-r101`, `-swin-t`, `-swin-s`, `-swin-b` are the full size, `solov2-light-r18`, `-r34`, `-r50` the light
one for images of 448 pixels, `solov2-micro` learns 128-pixel scenes on a CPU in minutes. A teacher's grids are finer
than a student's, and each object belongs to one of its levels (arXiv 2303.15062).
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vtk_cli.errors import UserError, nearest

Role = Literal["teacher", "student"]
Pyramid = Literal["five", "plain"]

MICRO_BACKBONE = "micro"


@dataclass(frozen=True)
class LevelConfig:
    """A level of the pyramid.

    Args:
        grid: S: the padded image is cut into S x S cells, whatever its shape.
        low, high: the level learns objects with low <= sqrt(width * height) < high, in pixels of the augmented image.
        stride: a mask of no more than this many cells of the mask features is dropped.
    """

    grid: int
    low: float
    high: float
    stride: int


@dataclass(frozen=True)
class SegmenterConfig:
    """A network.

    Args:
        name: of the size, one of `SEGMENTERS`.
        backbone: a timm network with maps of strides 4, 8, 16, 32, or `micro`.
        classes: K.
        levels: the finest first.
        pyramid: `five` levels are made of the maps P2..P6; `plain`: each level is one map as it comes.
        fpn_width: channels of the feature pyramid.
        tower_depth, tower_width: convolutions of the category and of the kernel branch, and their channels.
        embedding: E: length of a kernel, and channels of the mask features.
        mask_width: channels within the mask-feature branch.
        groups: of the group norms.
        mask_stride: pixels a cell of the mask features is wide.
        init_std: of the normal distribution that the weights of both heads start from.
        sigma: an object's cells are those in the central sigma of its box, 3 x 3 at most.
        frozen: batch norms keep their statistics, and stem and first stage do not learn: for ImageNet weights.
        stride_in_1x1: bottlenecks have their stride in the first convolution, not in the 3 x 3: the first ResNets, from
            which the published PointWSSIS weights come.
    """

    name: str
    backbone: str
    classes: int
    levels: tuple[LevelConfig, ...]
    pyramid: Pyramid = "five"
    fpn_width: int = 256
    tower_depth: int = 4
    tower_width: int = 512
    embedding: int = 256
    mask_width: int = 128
    groups: int = 32
    mask_stride: int = 4
    init_std: float = 0.01
    sigma: float = 0.2
    frozen: bool = True
    stride_in_1x1: bool = False

    @property
    def grids(self) -> tuple[int, ...]:
        """S of each level."""
        return tuple(level.grid for level in self.levels)

    @property
    def padding_multiple(self) -> int:
        """Images are padded to a multiple of this: the stride of the backbone's last map."""
        return 16 if self.backbone == MICRO_BACKBONE else 32


_STRIDES = (8, 8, 16, 32, 32)
_FINEST = 512
"""Cells along a side of the finest grid that a file may ask for."""
_TEACHER_GRIDS, _STUDENT_GRIDS = (80, 64, 32, 24, 12), (40, 36, 24, 16, 12)
_TEACHER_RANGES = ((1, 72), (72, 144), (144, 288), (288, 584), (584, 2048))
_STUDENT_RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
_LIGHT_RANGES = ((1, 56), (28, 112), (56, 224), (112, 448), (224, 896))
_LIGHT_TEACHER_RANGES = ((1, 42), (42, 84), (84, 168), (168, 341), (341, 1195))
"""The teacher's at 7/12 of their size, as the light student's are; there is no published light teacher."""
_MICRO_LEVELS = (LevelConfig(16, 1, 30, 4), LevelConfig(12, 30, 40, 8), LevelConfig(8, 40, 100_000, 16))


def _levels(grids: tuple[int, ...], ranges: tuple[tuple[int, int], ...]) -> tuple[LevelConfig, ...]:
    rows = zip(grids, ranges, _STRIDES, strict=True)
    return tuple(LevelConfig(grid, low, high, stride) for grid, (low, high), stride in rows)


_FULL: Mapping[Role, Mapping[str, Any]] = {
    "teacher": {"levels": _levels(_TEACHER_GRIDS, _TEACHER_RANGES)},
    "student": {"levels": _levels(_STUDENT_GRIDS, _STUDENT_RANGES)},
}
_LIGHT_HEADS: Mapping[str, Any] = {"tower_depth": 2, "tower_width": 256, "embedding": 128}
_LIGHT: Mapping[Role, Mapping[str, Any]] = {
    "teacher": {"levels": _levels(_TEACHER_GRIDS, _LIGHT_TEACHER_RANGES), **_LIGHT_HEADS},
    "student": {"levels": _levels(_STUDENT_GRIDS, _LIGHT_RANGES), **_LIGHT_HEADS},
}
_MICRO_SIZE: Mapping[str, Any] = {
    "levels": _MICRO_LEVELS,
    "pyramid": "plain",
    "fpn_width": 32,
    "tower_depth": 2,
    "tower_width": 64,
    "embedding": 24,
    "mask_width": 32,
    "groups": 8,
    "mask_stride": 2,
    "init_std": 0.03,
    "frozen": False,
}
_MICRO: Mapping[Role, Mapping[str, Any]] = {"teacher": _MICRO_SIZE, "student": _MICRO_SIZE}

_SIZES: Mapping[str, tuple[str, Mapping[Role, Mapping[str, Any]]]] = {
    "solov2-r50": ("resnet50.tv_in1k", _FULL),
    "solov2-r101": ("resnet101.tv_in1k", _FULL),
    "solov2-swin-t": ("swin_tiny_patch4_window7_224.ms_in1k", _FULL),
    "solov2-swin-s": ("swin_small_patch4_window7_224.ms_in1k", _FULL),
    "solov2-swin-b": ("swin_base_patch4_window7_224.ms_in22k", _FULL),
    "solov2-light-r18": ("resnet18.tv_in1k", _LIGHT),
    "solov2-light-r34": ("resnet34.tv_in1k", _LIGHT),
    "solov2-light-r50": ("resnet50.tv_in1k", _LIGHT),
    "solov2-micro": (MICRO_BACKBONE, _MICRO),
}
SEGMENTERS: tuple[str, ...] = tuple(_SIZES)
"""The names `segmenter_config` knows."""


def segmenter_config(name: str, classes: int, role: Role = "student", **changes: Any) -> SegmenterConfig:
    """The configuration called `name`.

    Args:
        name: one of `SEGMENTERS`.
        classes: K, at least 1.
        role: whose grids and size ranges.
        changes: fields of `SegmenterConfig` that differ, e.g. `backbone="convnext_tiny.fb_in1k"`.

    Raises:
        UserError: there is no such network.
    """
    if name not in _SIZES:
        fix = nearest(name, SEGMENTERS) or f"there are {', '.join(SEGMENTERS)}"
        raise UserError(f"unknown segmenter {name!r}", fix=fix)
    backbone, sizes = _SIZES[name]
    return SegmenterConfig(**{"name": name, "backbone": backbone, "classes": classes, **sizes[role], **changes})


def config_to_json(config: SegmenterConfig) -> dict[str, Any]:
    """`config` as values of JSON; `config_from_json` reads them back."""
    return asdict(config)


def config_from_json(values: Mapping[str, Any]) -> SegmenterConfig:
    """What `config_to_json` wrote, after JSON.

    Raises:
        ValueError: a field is missing or unknown, or of another type.
    """
    try:
        levels = tuple(LevelConfig(**_checked(LevelConfig, level)) for level in values["levels"])
        if finest := [level.grid for level in levels if not 1 <= level.grid <= _FINEST]:
            raise ValueError(f"grids of 1 to {_FINEST} cells a side, not {finest[0]}")
        plain = {name: value for name, value in values.items() if name != "levels"}
        return SegmenterConfig(levels=levels, **_checked(SegmenterConfig, plain))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no configuration of a segmenter: {error}") from error


def _checked(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` for fields of a dataclass; TypeError where one is of another type."""
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        hint = hints.get(name, type(None))
        known = typing.get_args(hint)
        fits = value in known if known else isinstance(value, (int, float) if hint is float else hint)
        if not fits or (isinstance(value, bool) and hint is not bool):
            raise TypeError(f"{name} cannot be {value!r}")
    return dict(values)
