"""Random crops, flips, shifts and colours of an image, and where they take the points on it.

The pixels, and the draws that choose them, are those of timm's `create_transform` (random resized crop, flips,
AutoAugment, RandAugment, 3-Augment, colour jitter). Every geometric operation moves the points as it moves the pixels,
those of AutoAugment and RandAugment too, so that a point can be followed through any of them (arXiv 2303.17595 follows
its clicks through crop and flip only).

Randomness comes from the global generators of Python, NumPy and torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import ColorJitter

from vtk_cli.data.augmentation_policy import augmentation_policy
from vtk_cli.data.pointed import PointedImage, Points

Crop = Literal["random-resized", "shift", "simple"]
Interpolation = Literal["bicubic", "bilinear", "nearest", "random"]
Transform = Callable[[PointedImage], PointedImage]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
SIMPLE_PADDING = 4
"""How many pixels the simple random crop may run over the border (arXiv 2204.07118, Section 3.2)."""
LONGEST = 16
"""An image longer than so many times its width is first cut to its middle: resized, it would not fit into memory."""
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class Augmentation:
    """What is done to an image in training.

    Args:
        size: side of the result, in pixels.
        crop: `random-resized` (a crop of random area and ratio, resized); `shift` (resized whole, then moved by up to
            `shift` pixels each way); `simple` (the shorter side resized, then a crop that may run over the reflected
            border by 4 pixels; arXiv 2204.07118).
        scale: range of the area of a random resized crop, as fractions of the image's.
        ratio: range of its ratio of width to height.
        interpolation: how it is resized; `random` draws bicubic or bilinear each time.
        shift: the largest shift along each axis, in pixels.
        fill: grey value, 0 to 255, of what a shift uncovers.
        hflip: probability of a flip from left to right.
        vflip: probability of a flip from top to bottom.
        auto_augment: a policy in timm's notation: `rand-m9-mstd0.5-inc1`, `original`, `v0`, `3a`, ...; empty for none.
        color_jitter: the largest relative change of brightness, contrast and saturation. As with timm a policy other
            than 3-Augment takes its place.
        mean: RGB in [0, 1], what the geometric operations of a policy uncover.
    """

    size: int
    crop: Crop = "random-resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bicubic"
    shift: int = 0
    fill: int = 0
    hflip: float = 0.5
    vflip: float = 0.0
    auto_augment: str = ""
    color_jitter: float = 0.0
    mean: tuple[float, float, float] = IMAGENET_MEAN


def train_transform(augmentation: Augmentation) -> Transform:
    """The random transform of `augmentation`: from any size to (size, size).

    Raises:
        UserError: timm knows no such policy.
    """
    steps: list[Transform] = [_crop(augmentation)]
    if augmentation.hflip > 0:
        steps.append(_Flip(augmentation.hflip, axis=0))
    if augmentation.vflip > 0:
        steps.append(_Flip(augmentation.vflip, axis=1))
    policy = augmentation.auto_augment
    if policy:
        resample = FILTERS.get(augmentation.interpolation)
        steps.append(augmentation_policy(policy, augmentation.size, augmentation.mean, resample))
    if augmentation.color_jitter > 0 and (not policy or "3a" in policy):
        steps.append(_Painted(ColorJitter(*[augmentation.color_jitter] * 3)))
    return _Steps(tuple(steps))


def eval_transform(size: int, crop_pct: float = 1.0, interpolation: Interpolation = "bicubic") -> Transform:
    """timm's centre crop: the shorter side resized to `size / crop_pct`, then the middle (size, size) of it."""
    return _CenterCrop(size, math.floor(size / crop_pct), interpolation)


def _crop(augmentation: Augmentation) -> Transform:
    size, interpolation = augmentation.size, augmentation.interpolation
    if augmentation.crop == "shift":
        return _Shift(size, augmentation.shift, augmentation.fill, interpolation)
    if augmentation.crop == "simple":
        return _SimpleCrop(size, interpolation)
    return _ResizedCrop(size, augmentation.scale, augmentation.ratio, interpolation)


@dataclass(frozen=True)
class _Steps:
    steps: tuple[Transform, ...]

    def __call__(self, pointed: PointedImage) -> PointedImage:
        for step in self.steps:
            pointed = step(pointed)
        return pointed


@dataclass(frozen=True)
class _Painted:
    paint: Callable[[Image.Image], Image.Image]

    def __call__(self, pointed: PointedImage) -> PointedImage:
        return pointed.painted(self.paint(pointed.image))


@dataclass(frozen=True)
class _ResizedCrop:
    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: Interpolation

    def __call__(self, pointed: PointedImage) -> PointedImage:
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(pointed.image, self.scale, self.ratio)
        resample = _filter(self.interpolation)
        cropped = cut(pointed, left, top, width, height)
        return resize(cropped, self.size, self.size, resample)


@dataclass(frozen=True)
class _Shift:
    size: int
    shift: int
    fill: int
    interpolation: Interpolation

    def __call__(self, pointed: PointedImage) -> PointedImage:
        resized = resize(pointed, self.size, self.size, _filter(self.interpolation))
        right, down = torch.randint(-self.shift, self.shift + 1, (2,)).tolist()
        if not right and not down:
            return resized
        canvas = Image.new("RGB", (self.size, self.size), (self.fill,) * 3)
        canvas.paste(resized.image, (right, down))
        return resized.moved(canvas, _translated(resized.points, right, down))


@dataclass(frozen=True)
class _SimpleCrop:
    size: int
    interpolation: Interpolation

    def __call__(self, pointed: PointedImage) -> PointedImage:
        resized = _resize_shorter(pointed, self.size, _filter(self.interpolation))
        width, height = resized.image.size
        left, top = (
            int(torch.randint(-SIMPLE_PADDING, side - self.size + SIMPLE_PADDING + 1, ())) for side in (width, height)
        )
        if 0 <= left <= width - self.size and 0 <= top <= height - self.size:
            return cut(resized, left, top, self.size, self.size)
        columns, rows = (_reflected(first, self.size, length) for first, length in ((left, width), (top, height)))
        pixels = np.asarray(resized.image)[rows[:, None], columns]
        return resized.moved(Image.fromarray(pixels), _translated(resized.points, -left, -top))


@dataclass(frozen=True)
class _Flip:
    probability: float
    axis: int

    def __call__(self, pointed: PointedImage) -> PointedImage:
        if torch.rand(1).item() >= self.probability:
            return pointed
        method = Image.Transpose.FLIP_TOP_BOTTOM if self.axis else Image.Transpose.FLIP_LEFT_RIGHT
        points = pointed.points
        if len(points):
            points = points.copy()
            points[:, self.axis] = pointed.image.size[self.axis] - points[:, self.axis]
        return pointed.moved(pointed.image.transpose(method), points)


@dataclass(frozen=True)
class _CenterCrop:
    size: int
    shorter: int
    interpolation: Interpolation

    def __call__(self, pointed: PointedImage) -> PointedImage:
        resized = _resize_shorter(pointed, self.shorter, _filter(self.interpolation))
        left, top = (_middle(length, self.size) for length in resized.image.size)
        return cut(resized, left, top, self.size, self.size)


def cut(pointed: PointedImage, left: int, top: int, width: int, height: int) -> PointedImage:
    """The part of an image in a box; black where the box reaches over its border.

    A point on the border of the box is inside.
    """
    if (left, top, width, height) == (0, 0, *pointed.image.size):
        return pointed
    image = pointed.image.crop((left, top, left + width, top + height))
    return pointed.moved(image, _translated(pointed.points, -left, -top))


def resize(pointed: PointedImage, width: int, height: int, resample: Image.Resampling) -> PointedImage:
    """An image at another size."""
    if pointed.image.size == (width, height):
        return pointed
    points = pointed.points
    if len(points):
        points = points * (width, height) / pointed.image.size
    return PointedImage(pointed.image.resize((width, height), resample), points, pointed.present)


def _resize_shorter(pointed: PointedImage, shorter: int, resample: Image.Resampling) -> PointedImage:
    """An image with its shorter side resized to `shorter`, the other in proportion, rounded down."""
    least = min(pointed.image.size)
    kept = [min(side, LONGEST * least) for side in pointed.image.size]
    left, top = (_middle(side, part) for side, part in zip(pointed.image.size, kept, strict=True))
    width, height = (shorter if side == least else int(shorter * side / least) for side in kept)
    return resize(cut(pointed, left, top, *kept), width, height, resample)


def _middle(length: int, part: int) -> int:
    """Where the middle `part` pixels of `length` begin, rounded as torchvision's centre crop does."""
    return round((length - part) / 2) if length >= part else -((part - length) // 2)


def _reflected(first: int, count: int, length: int) -> npt.NDArray[np.int64]:
    """Which of `length` pixels are seen at `first`, `first + 1`, ..., the row going on mirrored at its end pixels."""
    last = length - 1
    mirrored: npt.NDArray[np.int64] = last - np.abs(last - np.abs(np.arange(first, first + count)) % max(1, 2 * last))
    return mirrored


def _translated(points: Points, right: float, down: float) -> Points:
    return points + np.array((right, down)) if len(points) else points


def _filter(interpolation: Interpolation) -> Image.Resampling:
    """One of Pillow's; `random` draws it."""
    if interpolation == "random":
        return random.choice((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC))  # noqa: S311  (timm's draw)
    return FILTERS[interpolation]
