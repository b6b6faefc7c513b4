"""Where images of people's own come from: folders, CelebA's list of partitions, CIFAR-10's batches, LSUN's databases.

FFHQ's folders of a thousand are folders like any other.
"""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vtk_cli.data.images import DECODE_ERRORS, FORMATS, BrokenImage, ImageList, decode_image, upright_rgb
from vtk_cli.data.walking import file_size, path_within
from vtk_cli.errors import UserError

CELEBA_LISTS = ("list_eval_partition.csv", "list_eval_partition.txt")
CELEBA_FOLDERS = ("img_align_celeba/img_align_celeba", "img_align_celeba", ".")
CELEBA_TRAIN, CELEBA_VALIDATION, CELEBA_TEST = 0, 1, 2

CIFAR_FOLDER = "cifar-10-batches-py"
CIFAR_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR_TEST = "test_batch"
CIFAR_SIDE = 32

LSUN_FILE = "data.mdb"

_IN_ARRAYS = {
    (module, name)
    for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("ndarray", "dtype", "_reconstruct")
} | {("_codecs", "encode")}
"""What a pickled array is made of; nothing else is let out of a pickle."""


class Reader(Protocol):
    """Images by number."""

    def image(self, index: int) -> Image.Image:
        """Image `index`, upright, grey or RGB; raises `BrokenImage`."""

    def content(self, index: int) -> bytes:
        """What is stored of image `index`: other bytes, another image."""


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Images in memory: uint8 (N, H, W) or (N, 3, H, W)."""

    images: NDArray[np.uint8]

    def image(self, index: int) -> Image.Image:
        """Image `index`, grey or RGB."""
        pixels = self.images[index]
        return Image.fromarray(np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)))

    def content(self, index: int) -> bytes:
        """Its pixels."""
        pixels: bytes = self.images[index].tobytes()
        return pixels


@dataclass(frozen=True, eq=False)
class FileReader:
    """Images that are files."""

    images: ImageList

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB; raises `BrokenImage`."""
        return decode_image(self.images.file(index))

    def content(self, index: int) -> bytes:
        """The bytes of its file; raises `BrokenImage`."""
        file = self.images.file(index)
        try:
            return file.read_bytes()
        except OSError as error:
            raise BrokenImage(error.strerror or "cannot be read", str(file)) from error


class LsunReader:
    """The images of one of LSUN's databases (`bedroom_train_lmdb`).

    Args:
        folder: which holds `data.mdb`.

    Raises:
        UserError: it cannot be read, or the package that reads it is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            lmdb: Any = import_module("lmdb")
        except ImportError as error:
            fix = "pip install lmdb, or put the images into a folder"
            raise UserError(
                "LSUN's databases are read by the package lmdb, which is not here", str(folder), fix
            ) from error
        self._folder = folder
        try:
            self._database = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
            with self._database.begin() as transaction:
                self.keys = tuple(bytes(key) for key in transaction.cursor().iternext(values=False))
        except lmdb.Error as error:
            raise UserError(f"is no database of LSUN ({error})", str(folder)) from error

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB; raises `BrokenImage`."""
        try:
            with Image.open(io.BytesIO(self.content(index)), formats=FORMATS) as opened:
                opened.load()
                return upright_rgb(opened)
        except DECODE_ERRORS as error:
            name = self.keys[index].decode("ascii", "replace")
            raise BrokenImage(str(error) or type(error).__name__, f"{self._folder}: {name}") from error

    def content(self, index: int) -> bytes:
        """What the database holds under its key."""
        with self._database.begin() as transaction:
            return bytes(transaction.get(self.keys[index]))


def celeba_list(root: Path) -> Path | None:
    """CelebA's list of partitions in `root`, or None."""
    return next((root / name for name in CELEBA_LISTS if (root / name).is_file()), None)


def read_celeba(root: Path, partitions: Path) -> dict[int, ImageList]:
    """CelebA's images by partition: 0 train, 1 validation, 2 test.

    Args:
        root: holds `img_align_celeba`.
        partitions: `file,partition` (with a header) or `file partition` a line.

    Raises:
        UserError: a line is neither, or an image that is listed is not there.
    """
    rows = _partition_rows(partitions)
    first = rows[0][0]
    folder = next((root / name for name in CELEBA_FOLDERS if file_size(root / name / first) is not None), None)
    if folder is None:
        raise UserError(
            f"{first} is listed but not in {root / CELEBA_FOLDERS[1]}", str(partitions), "unpack the images"
        )
    found: dict[int, list[tuple[str, int]]] = {}
    for name, partition in rows:
        size = file_size(folder / name) if path_within(folder, name) else None
        if size is None:
            raise UserError(f"{name} is listed but not in {folder}", str(partitions), "unpack all of the images")
        found.setdefault(partition, []).append((name, size))
    return {partition: _listed(folder, files) for partition, files in sorted(found.items())}


def _partition_rows(path: Path) -> list[tuple[str, int]]:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    split = [row for row in csv.reader(",".join(line.replace(",", " ").split()) for line in lines) if row]
    if split and not split[0][-1].isdecimal():
        split = split[1:]
    known = {str(part): part for part in (CELEBA_TRAIN, CELEBA_VALIDATION, CELEBA_TEST)}
    wrong = next((row for row in split if len(row) != 2 or row[1] not in known), None)
    if wrong is not None or not split:
        line = ",".join(wrong) if wrong else "nothing"
        raise UserError(f"holds {line!r} where a file and a partition 0, 1 or 2 should be", str(path))
    return [(name, known[part]) for name, part in split]


def _listed(folder: Path, files: Sequence[tuple[str, int]]) -> ImageList:
    ordered = sorted(files)
    return ImageList(folder, tuple(name for name, _ in ordered), tuple(size for _, size in ordered), None, None)


def cifar_folder(root: Path) -> Path | None:
    """Where CIFAR-10's Python batches lie, `root` itself or in it; None where there are none."""
    return next((folder for folder in (root, root / CIFAR_FOLDER) if (folder / CIFAR_TRAIN[0]).is_file()), None)


def read_cifar(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """CIFAR-10's train and test images: uint8 (50000, 3, 32, 32) and (10000, 3, 32, 32).

    Raises:
        UserError: a batch is missing, damaged, or holds more than arrays.
    """
    train = np.concatenate([_cifar_batch(folder / name) for name in CIFAR_TRAIN])
    return train, _cifar_batch(folder / CIFAR_TEST)


class _ArraysOnly(pickle.Unpickler):
    """Lets numbers, texts and arrays out of a pickle; whatever else it names is not even imported."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _IN_ARRAYS:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is no part of an array")
        return super().find_class(module_name, global_name)


def _cifar_batch(path: Path) -> NDArray[np.uint8]:
    try:
        with path.open("rb") as stream:
            pixels = _ArraysOnly(stream, encoding="latin1").load()["data"]
        return np.ascontiguousarray(pixels, np.uint8).reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
    except FileNotFoundError as error:
        raise UserError("this batch of CIFAR-10 is missing", str(path), "unpack all of the archive") from error
    except (pickle.UnpicklingError, ImportError, AttributeError, *DECODE_ERRORS) as error:
        raise UserError(f"is no batch of CIFAR-10 ({error})", str(path), "unpack the archive anew") from error
