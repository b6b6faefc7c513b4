"""What has been computed is kept: one file a row, keyed by everything that shaped it.

    clean/KEY.npz         logits of a network on the images
    noise/KEY.npz         its predictions under random noise
    rows/KEY.npz          for the images attacked against one network: which other networks they fool, one bit an image
    masked/KEY.npz        on which of those images the attack found no gradient
    adversarial/KEY.npz   those images, if there is room

Any file may be deleted: it is made again, and so is one whose checksum (zip's CRC-32) is wrong. Files are written whole
and all work is locked, so any number of processes may work on one store, in any order, and be killed at any moment.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtk_cli.files import atomic_path, disk_errors, lock, make_folder

Bits = NDArray[np.bool_]

_ROOM = 4
"""Adversarial images are kept while the disk has this many times their size free."""


@dataclass(frozen=True)
class Store:
    """A folder of finished work.

    Args:
        folder: where; made when first written to.
    """

    folder: Path

    def arrays(self, kind: str, key: str) -> dict[str, NDArray[Any]] | None:
        """The arrays stored under (`kind`, `key`); None where there are none or the file is torn."""
        path = self.folder / kind / f"{key}.npz"
        try:
            return _all_arrays(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        # RuntimeError: a flipped bit can make an entry look encrypted or packed by an unknown method.
        except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):
            with disk_errors(path):
                path.unlink(missing_ok=True)
            return None

    def save_arrays(self, kind: str, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store `arrays` under (`kind`, `key`), whole or not at all."""
        with atomic_path(self.folder / kind / f"{key}.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **dict(arrays))

    def row(self, key: str, images: int) -> dict[str, Bits]:
        """Target key -> (images,) bits of a row; empty where nothing is stored."""
        packed = self.arrays("rows", key) or {}
        return {target: np.unpackbits(bits, count=images).astype(np.bool_) for target, bits in packed.items()}

    def save_row(self, key: str, row: Mapping[str, Bits]) -> None:
        """Store a row: target key -> (images,) bits."""
        self.save_arrays("rows", key, {target: np.packbits(bits) for target, bits in row.items()})

    def has_room(self, size: int) -> bool:
        """Whether the disk would still be mostly free after `size` more bytes."""
        make_folder(self.folder)
        return shutil.disk_usage(self.folder).free > _ROOM * size

    def working_on(self, key: str) -> AbstractContextManager[None]:
        """Hold what is stored under `key` against other processes; `Busy` if one of them has it."""
        return lock(self.folder / "locks" / key, wait=False, busy="another process is at work on this")


def _all_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """What an archive holds.

    Raises:
        BadZipFile: not all that its last record counts; that is 22 bytes long where there is no comment.
    """
    with path.open("rb") as file:
        file.seek(-22, os.SEEK_END)
        count = int.from_bytes(file.read()[10:12], "little")
        file.seek(0)
        with np.load(file, allow_pickle=False) as stored:
            if len(stored.files) != count:  # a flipped bit in the directory hides some
                raise zipfile.BadZipFile
            return {name: stored[name] for name in stored.files}
