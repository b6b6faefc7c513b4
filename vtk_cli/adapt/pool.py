"""The images of a target domain: by id, without labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vtk_cli.data.classification_folders import FileReader
from vtk_cli.data.classification_named import ArrayReader


@dataclass(frozen=True, eq=False)
class Pool:
    """Images of a target domain.

    Args:
        name: what it is called in messages.
        ids: sample ids, all different, sorted: the path below the root with `/` between, or `digits-m/000123`. These
            cross every border of a file; rows never do.
        read: the upright RGB image of a row; picklable; raises `BrokenImage`.
        content: the bytes of a row that its checksum is made of: the file, or the pixels of an image in memory.
        root: of the files; None of images in memory.
    """

    name: str
    ids: tuple[str, ...]
    read: Callable[[int], Image.Image]
    content: Callable[[int], bytes]
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each id."""
        return {name: row for row, name in enumerate(self.ids)}

    def rows(self, ids: Iterable[str]) -> list[int]:
        """The rows of ids, in their order; raises `KeyError` of one that is not in the pool."""
        return [self.row_of[name] for name in ids]

    def path(self, sample_id: str) -> str:
        """Where the image lies; its id, where it is in memory."""
        return sample_id if self.root is None else str(self.root / sample_id)

    def image(self, sample_id: str) -> Image.Image:
        """The upright RGB image of an id; raises `BrokenImage`."""
        return self.read(self.row_of[sample_id])

    def only(self, ids: Collection[str]) -> Pool:
        """The images among `ids`."""
        wanted = frozenset(ids)
        kept = [row for row, name in enumerate(self.ids) if name in wanted]
        names = tuple(self.ids[row] for row in kept)
        return Pool(self.name, names, _Chosen(self.read, kept), _ChosenBytes(self.content, kept), self.root)


def files_pool(name: str, root: Path, paths: Sequence[str]) -> Pool:
    """A pool of files: paths relative to `root`, with `/` between, sorted."""
    return Pool(name, tuple(paths), FileReader(root, paths), FileBytes(root, tuple(paths)), root)


def memory_pool(name: str, ids: Sequence[str], images: npt.NDArray[np.uint8]) -> Pool:
    """A pool of images in memory, uint8 (N, 3, H, W), in the order of their sorted ids."""
    return Pool(name, tuple(ids), ArrayReader(images), _PixelBytes(ArrayReader(images)))


def pixel_bytes(image: Image.Image) -> bytes:
    """What the checksum of an image in memory is made of: its RGB values, row by row."""
    return np.asarray(image.convert("RGB")).tobytes()


@dataclass(frozen=True, eq=False)
class FileBytes:
    """The bytes of files by row."""

    root: Path
    paths: tuple[str, ...]

    def __call__(self, row: int) -> bytes:
        """Those of row `row`; raises `OSError`."""
        return (self.root / self.paths[row]).read_bytes()


@dataclass(frozen=True, eq=False)
class _PixelBytes:
    read: ArrayReader

    def __call__(self, row: int) -> bytes:
        return pixel_bytes(self.read(row))


@dataclass(frozen=True, eq=False)
class _Chosen:
    read: Callable[[int], Image.Image]
    kept: Sequence[int]

    def __call__(self, row: int) -> Image.Image:
        return self.read(self.kept[row])


@dataclass(frozen=True, eq=False)
class _ChosenBytes:
    content: Callable[[int], bytes]
    kept: Sequence[int]

    def __call__(self, row: int) -> bytes:
        return self.content(self.kept[row])
