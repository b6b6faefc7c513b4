"""The embedded `digits` and `digits-m` as domains.

`digits -> digits-m` parts the 1,797 digits by a seed: 600 for the source, 800 for the pool, 397 for the test. No digit
is in two of them, and those of the validation split are all in the test.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from vtk_cli.adapt.pool import Pool, memory_pool
from vtk_cli.data.classification_folders import some
from vtk_cli.data.classification_named import ArrayReader
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.digits import SPLITS, DigitsSplit, load_digits_split
from vtk_cli.data.digits_m import load_digits_m_split
from vtk_cli.errors import UserError

EMBEDDED = ("digits", "digits-m")
PAIR_SOURCE, PAIR_POOL = 600, 800
"""Digits in the source and in the pool where both domains are embedded; all others are in the test."""
CLASSES = tuple("0123456789")
_STREAM = 0x616474
"""Sets this draw apart from others of the same seed."""

Ids = npt.NDArray[np.int64]


def digits_source(name: str, target: str | None, seed: int) -> ImageSource:
    """`digits` or `digits-m` as a source.

    Args:
        name: of the two.
        target: the embedded target; None: another one, or the same as the source, and all of the train split is used.
        seed: of the parting.
    """
    paired = target is not None and target != name
    chosen = part_digits(seed)[0] if paired else load_digits_split("train").ids
    digits = _all_digits(name)
    labels = torch.from_numpy(digits.labels[chosen])
    return ImageSource(name, CLASSES, labels, ArrayReader(digits.images[chosen]), _sample_ids(name, chosen))


def digits_target(
    name: str, source: str | None, class_names: tuple[str, ...], seed: int
) -> tuple[Pool, dict[str, int], ImageSource]:
    """`digits` or `digits-m` as a target: its pool, the labels of that as numbers of `class_names`, and its test.

    Args:
        name: of the two.
        source: the other one: the digits are parted; anything else: train split and validation split.
        class_names: of the source.
        seed: of the parting.

    Raises:
        UserError: a digit is not one of the classes.
    """
    paired = source in EMBEDDED and source != name
    chosen, held_out = part_digits(seed)[1:] if paired else tuple(load_digits_split(split).ids for split in SPLITS)
    if absent := sorted(set(CLASSES) - set(class_names)):
        raise UserError(f"classes of the target are not in the source: {some(absent)}", name)
    digits = _all_digits(name)
    labels = np.array([class_names.index(digit) for digit in CLASSES], np.int64)[digits.labels]
    ids = _sample_ids(name, chosen)
    truth = dict(zip(ids, labels[chosen].tolist(), strict=True))
    reader, names = ArrayReader(digits.images[held_out]), _sample_ids(name, held_out)
    test = ImageSource(f"{name} (test)", class_names, torch.from_numpy(labels[held_out]), reader, names)
    return memory_pool(name, ids, digits.images[chosen]), truth, test


def part_digits(seed: int) -> tuple[Ids, Ids, Ids]:
    """Ids of source, pool and test, each ascending."""
    train, val = (load_digits_split(split).ids for split in SPLITS)
    order = np.random.default_rng([_STREAM, seed]).permutation(train)
    source, pool, rest = np.split(order, [PAIR_SOURCE, PAIR_SOURCE + PAIR_POOL])
    return np.sort(source), np.sort(pool), np.sort(np.concatenate([rest, val]))


@cache
def _all_digits(name: str) -> DigitsSplit:
    """Both splits; the row of a digit is its id. Kept: making them takes as long as a short stage."""
    load = load_digits_split if name == "digits" else load_digits_m_split
    train, val = (load(split) for split in SPLITS)
    ids = np.concatenate([train.ids, val.ids])
    order = np.argsort(ids)
    images, labels = np.concatenate([train.images, val.images]), np.concatenate([train.labels, val.labels])
    return DigitsSplit(images[order], labels[order], ids[order])


def _sample_ids(name: str, ids: Ids) -> tuple[str, ...]:
    return tuple(f"{name}/{identity:06d}" for identity in ids)
