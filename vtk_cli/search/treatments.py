"""What the names of `--augmentation` and `--pixels` stand for.

The published ones: `cifar` of GeNAS, NAS-Bench-201 and DARTS (which cuts holes: `cifar-cutout`), `spos` of
arXiv 1904.00420, `imagenet-lighting` and `imagenet-square` of the supernets and re-trainings of arXiv 2101.11834 and
2305.08611, whose networks see colours from 0 to 1. SPOS' networks see them from 0 to 255, blue first: their first
convolution with its input channels turned round sees the same red first, so here every network sees red first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from vtk_cli.data.augmentation import IMAGENET_MEAN, Augmentation
from vtk_cli.models.preprocessing import PixelConfig, luma
from vtk_cli.search.batch_augmentation import BatchAugmentation
from vtk_cli.search.image_options import AugmentationName, PixelFormat

_JITTER = 0.4
_HOLE = 16
_LIGHTING = 0.1
_EVAL_CROP = 0.875
"""The shorter side is resized to 256 pixels for the middle 224."""
_DIGITS_STEP = 16
"""Digits move by up to a sixteenth of their side, half the width of a pixel of their 8x8 source."""

Moments = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and deviation of red, green and blue in [0, 1]."""


def _bytes(mean: tuple[float, float, float], std: tuple[float, float, float]) -> Moments:
    return (mean[0] / 255, mean[1] / 255, mean[2] / 255), (std[0] / 255, std[1] / 255, std[2] / 255)


_DIGITS: Moments = ((0.3,) * 3, (0.35,) * 3)
_IMAGENET: Moments = (IMAGENET_MEAN, (0.229, 0.224, 0.225))
_KNOWN: Mapping[str, Moments] = MappingProxyType(
    {
        "cifar100": _bytes((129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
        "cifar10": _bytes((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
        "imagenet16": _bytes((122.68, 116.66, 104.01), (63.22, 61.26, 65.09)),
        "digits": _DIGITS,
    }
)
"""By what is in the name of the data, letters and digits only; the first that is counts."""


@dataclass(frozen=True)
class Pixels:
    """What networks see of an image.

    Args:
        config: size, mean, deviation and the crop of evaluation.
        grey: whether they see one channel, the luma of ITU-R 601.
    """

    config: PixelConfig
    grey: bool = False

    def normalised(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 as networks see them: float32 (B, 3, S, S), grey (B, 1, S, S)."""
        return self.seen(images.float() / 255)

    def seen(self, images: Tensor) -> Tensor:
        """As `normalised`, of images in [0, 1]."""
        mean, std = (
            torch.tensor(values, device=images.device).view(1, -1, 1, 1)
            for values in (self.config.mean, self.config.std)
        )
        out = (images - mean) / std
        return luma(out) if self.grey else out


def pixels_for(
    data: str, augmentation: AugmentationName, wanted: PixelFormat, size: int, *, grey: bool = False
) -> Pixels:
    """What networks see.

    Args:
        data: the name of the data, which may say its mean and deviation.
        augmentation: of the training.
        wanted: `auto`: as networks are that were published with the augmentation.
        size: side of the input, in pixels.
        grey: whether they see one channel; mean and deviation are then digits' own.
    """
    own: Mapping[str, Literal["unit", "bytes"]] = {
        "imagenet-lighting": "unit",
        "imagenet-square": "unit",
        "spos": "bytes",
    }
    kind = own.get(augmentation, "normalised") if wanted == "auto" else wanted
    name = "".join(letter for letter in data.lower() if letter.isalnum())
    known = next((moments for part, moments in _KNOWN.items() if part in name), _IMAGENET)
    mean, std = {
        "normalised": _DIGITS if grey else known,
        "unit": ((0.0,) * 3, (1.0,) * 3),
        "bytes": ((0.0,) * 3, (1 / 255,) * 3),
    }[kind]
    crop = _EVAL_CROP if is_cropped(augmentation) else 1.0
    return Pixels(PixelConfig(size, mean, std, "bilinear", crop), grey)


def is_cropped(augmentation: AugmentationName) -> bool:
    """Whether training images are crops of any size, made from the whole image."""
    return augmentation.startswith("imagenet") or augmentation == "spos"


def crop_for(augmentation: AugmentationName, size: int) -> Augmentation:
    """The crop of each image of an augmentation whose images are crops; its colour jitter."""
    return Augmentation(
        size,
        ratio=(1.0, 1.0) if augmentation == "imagenet-square" else (3 / 4, 4 / 3),
        interpolation="bilinear",
        color_jitter=_JITTER if augmentation in {"imagenet", "spos"} else 0.0,
    )


def on_batches(augmentation: AugmentationName, size: int) -> BatchAugmentation:
    """What an augmentation does to whole batches."""
    if augmentation == "digits":
        return BatchAugmentation(wrap=max(1, size // _DIGITS_STEP))
    if augmentation in {"cifar", "cifar-cutout"}:
        padding, hole = max(1, size // 8), _HOLE * size // 32
        return BatchAugmentation(padding=padding, flip=True, hole=hole if augmentation == "cifar-cutout" else 0)
    if augmentation in {"imagenet-lighting", "imagenet-square"}:
        return BatchAugmentation(lighting=_LIGHTING)
    return BatchAugmentation()
