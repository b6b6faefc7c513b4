"""The embedded `digits-m`: the digits of `digits` blended into photo crops, the target domain of domain adaptation.

A target image is |photo crop - digit|, as MNIST-M makes it (Ganin and Lempitsky, arXiv 1409.7495, Section 4). Ids,
labels and splits are those of `digits`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vtk_cli.data.digits import SIDE, SPLITS, DigitsSplit, Split, load_digits_split, write_image_folder
from vtk_cli.data.painting import Bytes, load_photos, photo_crop

SMALLEST_CROP, LARGEST_CROP = 32, 127
STREAM = 2
"""Sets this dataset's random numbers apart from those of the other embedded datasets."""


def load_digits_m_split(split: Split) -> DigitsSplit:
    """The 1,437 train or 360 validation images of `digits-m`, in the order of `digits`."""
    plain = load_digits_split(split)
    blended = np.abs(photo_backgrounds(plain.ids).astype(np.int16) - plain.images).astype(np.uint8)
    return DigitsSplit(blended, plain.labels, plain.ids)


def photo_backgrounds(ids: npt.NDArray[np.int64]) -> Bytes:
    """The photo crop behind each digit: uint8 (N, 3, 32, 32); a digit's crop depends on its id alone."""
    photos = load_photos()
    crops = []
    for identity in ids:
        rng = np.random.default_rng([STREAM, int(identity)])
        photo = photos[int(rng.integers(2))]
        crops.append(photo_crop(photo, SIDE, rng, smallest=SMALLEST_CROP, largest=LARGEST_CROP))
    return np.stack(crops).transpose(0, 3, 1, 2)


def build_digits_m(folder: Path) -> None:
    """Write `digits-m` into the empty `folder` as an ImageFolder of PNG: `train|val/<class>/<id>.png`."""
    for split in SPLITS:
        write_image_folder(folder / split, load_digits_m_split(split))
