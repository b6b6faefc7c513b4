"""The embedded `digits`: scikit-learn's 1,797 real handwritten digits as 32x32 RGB images, in one fixed split.

Every other embedded dataset draws its digits through `split_ids`, so that a digit of a validation split is in no train
split of any of them.

Source of the images: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")
VAL_COUNT = 360
SIDE = 32
INK = 16
"""The darkest value of a source pixel: `load_digits` counts the inked pixels of a 4x4 block."""


@dataclass(frozen=True, eq=False)
class DigitsSplit:
    """One split of a dataset made of single digits, in memory.

    Args:
        images: uint8 (N, 3, 32, 32), RGB, 0..255.
        labels: int64 (N,), 0..9.
        ids: int64 (N,), ascending: which of the 1,797 digits each image shows.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def sample_ids(self, dataset: str) -> tuple[str, ...]:
        """The images' names that cross file boundaries, e.g. `digits-m/000123`."""
        return tuple(f"{dataset}/{identity:06d}" for identity in self.ids)


@dataclass(frozen=True, eq=False)
class Glyphs:
    """The digits of a split before any drawing: ink (N, 8, 8) in 0..1; labels and ids as in `DigitsSplit`."""

    ink: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]


def load_digits_split(split: Split) -> DigitsSplit:
    """The 1,437 train or 360 validation images of `digits`: white on black, three equal channels."""
    glyphs = load_glyphs(split)
    grey = np.rint(upscale(glyphs.ink, SIDE) * 255).astype(np.uint8)
    return DigitsSplit(np.repeat(grey[:, None], 3, axis=1), glyphs.labels, glyphs.ids)


def load_glyphs(split: Split) -> Glyphs:
    """The digits of a split as they come, 8x8."""
    from sklearn.datasets import load_digits  # takes a second

    source = load_digits()
    labels = np.asarray(source.target, np.int64)
    ids = split_ids(labels, split)
    return Glyphs(np.asarray(source.images, np.float64)[ids] / INK, labels[ids], ids)


def split_ids(labels: npt.NDArray[np.int64], split: Split) -> npt.NDArray[np.int64]:
    """The ids of a split, ascending: the same stratified draw on every machine."""
    from sklearn.model_selection import train_test_split

    parts = train_test_split(np.arange(len(labels)), test_size=VAL_COUNT, stratify=labels, random_state=0)
    return np.sort(np.asarray(parts[SPLITS.index(split)], np.int64))


def upscale(images: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Bilinear interpolation of (..., H, W) to (..., side, side), the corners not aligned.

    The same as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, in float64 and two taps an
    axis, so that the result does not depend on a matrix library.
    """
    for axis in (-2, -1):
        length = images.shape[axis]
        position = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
        low = np.floor(position).astype(np.int64)
        high = np.minimum(low + 1, length - 1)
        weight = (position - low).reshape((side, 1) if axis == -2 else (side,))
        images = images.take(low, axis) * (1 - weight) + images.take(high, axis) * weight
    return images


def build_digits(folder: Path) -> None:
    """Write `digits` into the empty `folder` as an ImageFolder of PNG: `train|val/<class>/<id>.png`."""
    for split in SPLITS:
        write_image_folder(folder / split, load_digits_split(split))


def write_image_folder(folder: Path, split: DigitsSplit) -> None:
    """Write a split as `<class>/<id>.png`, ids of six digits."""
    for name in sorted({str(label) for label in split.labels}):
        (folder / name).mkdir(parents=True)
    for image, label, identity in zip(split.images, split.labels, split.ids, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / str(label) / f"{identity:06d}.png")
