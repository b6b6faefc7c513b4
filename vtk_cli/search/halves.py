"""The two halves of the training images: one to train the shared weights on, one to judge architectures on.

A split file is JSON, `{"train": [0, 5, ...], "valid": [1, 2, ...]}` with numbers of training images, or as the released
code of arXiv 2305.08611 has it, `{"train": ["int", ["0", "5", ...]], "valid": ["int", ["1", "2", ...]]}`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtk_cli.errors import UserError
from vtk_cli.files import write_json

_FORM = 'write {"train": [0, 5, ...], "valid": [1, 2, ...]}'


@dataclass(frozen=True)
class Halves:
    """Numbers of training images, ascending.

    Args:
        train: those that weights are trained on, and batch normalisation is calibrated on.
        valid: those that architectures are judged on.
    """

    train: tuple[int, ...]
    valid: tuple[int, ...]

    def write(self, path: Path) -> None:
        """Write a split file that `read_halves` reads.

        Raises:
            JobError: the disk is full.
        """
        write_json(path, {"train": list(self.train), "valid": list(self.valid)})


def stratified_halves(labels: npt.NDArray[np.int64], seed: int) -> Halves:
    """Half of the images of every class each, drawn by the seed; the odd image of a class goes to either in turn.

    Args:
        labels: (N,) of the training images.
        seed: of the draw.

    Raises:
        UserError: there are not enough images for two halves.
    """
    rng = np.random.default_rng([seed, 0x68616C66])
    chosen: tuple[list[int], list[int]] = ([], [])
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        odd_to_valid = len(members) % 2 and len(chosen[0]) > len(chosen[1])
        cut = len(members) // 2 if odd_to_valid else -(-len(members) // 2)
        chosen[0].extend(members[:cut].tolist())
        chosen[1].extend(members[cut:].tolist())
    return _checked(chosen[0], chosen[1], len(labels), "the training images")


def read_halves(path: Path, count: int) -> Halves:
    """The halves that a split file names.

    Args:
        path: the file.
        count: of the training images.

    Raises:
        UserError: it cannot be read, a half is empty or has an image twice, the halves overlap, or there are not so
            many images.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"is not JSON: {error.msg}", f"{path}:{error.lineno}", _FORM) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("cannot be read as a split of the training images", str(path), _FORM) from error
    if not isinstance(content, dict) or not content.keys() >= {"train", "valid"}:
        found = f"it has {', '.join(map(str, content)) or 'nothing'}" if isinstance(content, dict) else "no object"
        raise UserError(f"does not name the halves train and valid ({found})", str(path), _FORM)
    return _checked(_numbers(content, "train", path), _numbers(content, "valid", path), count, str(path))


def _numbers(content: dict[str, Any], half: str, path: Path) -> list[int]:
    listed = content[half]
    if isinstance(listed, list) and len(listed) == 2 and listed[0] == "int" and isinstance(listed[1], list):
        listed = listed[1]
    if not isinstance(listed, list):
        raise UserError(f"{half} is no list of numbers", str(path), _FORM)
    for place, entry in enumerate(listed):
        is_number = type(entry) is int or (isinstance(entry, str) and entry.isascii() and entry.isdecimal())
        if not is_number:
            raise UserError(f"entry {place} of {half} is {entry!r}, no number of an image", str(path), _FORM)
    return [int(entry) for entry in listed]


def _checked(train: list[int], valid: list[int], count: int, where: str) -> Halves:
    for half, numbers in (("train", train), ("valid", valid)):
        if not numbers:
            raise UserError(f"the half {half} is empty", where, "each half needs images")
        if len({*numbers}) < len(numbers):
            raise UserError(f"the half {half} has images twice", where, "name each image once")
        outside = [number for number in numbers if not 0 <= number < count]
        if outside:
            what = f"the half {half} has image {outside[0]}, the training images are 0 to {count - 1}"
            raise UserError(what, where, "it may be the split of another data set")
    if shared := {*train} & {*valid}:
        what = f"the halves overlap in {len(shared)} images, the first {min(shared)}"
        raise UserError(what, where, "an image belongs to one half")
    return Halves(tuple(sorted(train)), tuple(sorted(valid)))
