"""AutoAugment, RandAugment, 3-Augment and AugMix of timm, with the points carried along.

Sources: arXiv 1805.09501 (AutoAugment), arXiv 1909.13719 (RandAugment), arXiv 2204.07118 (3-Augment), arXiv 1912.02781
(AugMix).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from timm.data import auto_augment as timm_policies
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform

from vtk_cli.data.pointed import PointedImage, Points
from vtk_cli.errors import UserError

GEOMETRIC = (
    timm_policies.rotate,
    timm_policies.shear_x,
    timm_policies.shear_y,
    timm_policies.translate_x_abs,
    timm_policies.translate_y_abs,
    timm_policies.translate_x_rel,
    timm_policies.translate_y_rel,
)
"""timm's operations that move pixels; all others leave them where they are."""
AUGMIX_TRANSLATION = 0.3
"""The largest translation of AugMix, as timm's `create_transform` sets it."""


def augmentation_policy(
    policy: str, size: int, mean: Sequence[float], resample: Image.Resampling | None
) -> Callable[[PointedImage], PointedImage]:
    """A policy of timm's, drawing as timm draws.

    Args:
        policy: in timm's notation: `rand-m9-mstd0.5-inc1`, `original-mstd0.5`, `v0`, `3a`, `augmix-m5-w4-d2`.
        size: side of the images, in pixels; translations are at most 0.45 of it.
        mean: RGB in [0, 1], what the geometric operations uncover.
        resample: how these resample; None: drawn each time.

    Raises:
        UserError: timm knows no such policy. Also when an image with points meets AugMix, which lays several moved
            copies of an image over each other.
    """
    params: dict[str, Any] = {
        "translate_const": int(size * 0.45),
        "img_mean": tuple(min(255, round(255 * value)) for value in mean),
    }
    if resample is not None:
        params["interpolation"] = resample
    kind = policy.partition("-")[0]
    try:
        if kind == "augmix":
            drawn = augment_and_mix_transform(policy, params | {"translate_pct": AUGMIX_TRANSLATION})
        elif kind == "rand":
            drawn = rand_augment_transform(policy, params)
        else:
            drawn = auto_augment_transform(policy, params)
    except (AssertionError, ValueError) as error:
        reason = str(error) or "it cannot be parsed"
        fix = "write it as timm does, e.g. rand-m9-mstd0.5-inc1, original, v0, 3a"
        raise UserError(f"no augmentation policy {policy!r}: {reason}", "--auto-augment", fix) from error
    operations = [step for chain in drawn.policy for step in chain] if hasattr(drawn, "policy") else drawn.ops
    for operation in operations:
        if operation.aug_fn is timm_policies.posterize:
            operation.aug_fn = posterized
        if kind != "augmix":
            operation.aug_fn = carried(operation.aug_fn)
    return _Blended(drawn) if kind == "augmix" else _Carried(drawn)


def carried(operation: Callable[..., Any]) -> Callable[..., PointedImage]:
    """An operation of timm's on images as one on images with points."""
    return _Moved(operation) if operation in GEOMETRIC else _Repainted(operation)


def posterized(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """`bits` of 8 kept in each channel; black without any, which timm may ask for and Pillow may refuse."""
    if bits < 1:
        return Image.new(image.mode, image.size)
    return image if bits >= 8 else ImageOps.posterize(image, bits)


@dataclass(frozen=True)
class _Carried:
    """AutoAugment and RandAugment hand whatever they are given from operation to operation."""

    policy: Callable[[Any], Any]

    def __call__(self, pointed: PointedImage) -> PointedImage:
        done: PointedImage = self.policy(pointed)
        return done


@dataclass(frozen=True)
class _Repainted:
    """An operation that leaves every pixel in its place."""

    operation: Callable[..., Image.Image]

    def __call__(self, pointed: PointedImage, *arguments: Any, **keywords: Any) -> PointedImage:
        return pointed.painted(self.operation(pointed.image, *arguments, **keywords))


@dataclass(frozen=True)
class _Moved:
    """An operation that calls `transform` or `rotate` of the image that it is given."""

    operation: Callable[..., Any]

    def __call__(self, pointed: PointedImage, *arguments: Any, **keywords: Any) -> PointedImage:
        if not len(pointed.points):
            return pointed.painted(self.operation(pointed.image, *arguments, **keywords))
        moved: PointedImage = self.operation(_Canvas(pointed), *arguments, **keywords)
        return moved


@dataclass(frozen=True)
class _Blended:
    """AugMix; a point of an image that is blended from moved copies is in several places."""

    mix: Callable[[Image.Image], Image.Image]

    def __call__(self, pointed: PointedImage) -> PointedImage:
        if len(pointed.points):
            fix = "choose another policy, or train without points"
            raise UserError("AugMix leaves a point in several places at once", "--auto-augment", fix)
        return pointed.painted(self.mix(pointed.image))


@dataclass(frozen=True)
class _Canvas:
    """Stands in for a Pillow image, of which timm's geometric operations call these; points go where pixels go."""

    pointed: PointedImage

    @property
    def size(self) -> tuple[int, int]:
        return self.pointed.image.size

    def transform(
        self, size: tuple[int, int], method: Image.Transform, data: Sequence[float], **keywords: Any
    ) -> PointedImage:
        if method != Image.Transform.AFFINE:
            raise UserError(f"a point cannot be followed through {method!r}", "--auto-augment", "choose another policy")
        image = self.pointed.image.transform(size, method, data, **keywords)
        return self.pointed.moved(image, _through(self.pointed.points, data))

    def rotate(self, degrees: float, **keywords: Any) -> PointedImage:
        """About the centre, anticlockwise."""
        image = self.pointed.image.rotate(degrees, **keywords)
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        centre = np.divide(self.size, 2)
        turned = (self.pointed.points - centre) @ np.array([[cosine, -sine], [sine, cosine]]) + centre
        return self.pointed.moved(image, turned)


def _through(points: Points, data: Sequence[float]) -> Points:
    """Where an affine map takes points; `data` (a, b, c, d, e, f) says that (x, y) shows (ax + by + c, dx + ey + f)."""
    a, b, c, d, e, f = data
    return (points - (c, f)) @ np.linalg.inv(np.array([[a, b], [d, e]])).T
