"""AutoAugment, RandAugment, 3-Augment and AugMix of timm, with the points carried along.

Sources: arXiv 1805.09501 (AutoAugment), arXiv 1909.13719 (RandAugment), arXiv 2204.07118 (3-Augment), arXiv 1912.02781
(AugMix).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
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
            return _Blended(augment_and_mix_transform(policy, params | {"translate_pct": AUGMIX_TRANSLATION}))
        if kind == "rand":
            drawn = rand_augment_transform(policy, params)
            operations: Iterable[Any] = drawn.ops
        else:
            drawn = auto_augment_transform(policy, params)
            operations = (operation for chain in drawn.policy for operation in chain)
    except (AssertionError, ValueError) as error:
        reason = str(error) or "it cannot be parsed"
        fix = "write it as timm does, e.g. rand-m9-mstd0.5-inc1, original, v0, 3a"
        raise UserError(f"no augmentation policy {policy!r}: {reason}", "--auto-augment", fix) from error
    for operation in operations:
        follow = _Moved if operation.aug_fn in GEOMETRIC else _Repainted
        operation.aug_fn = follow(operation.aug_fn)
    carried: Callable[[PointedImage], PointedImage] = drawn
    return carried


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
            raise NotImplementedError(f"a point cannot be followed through {method!r}")
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
