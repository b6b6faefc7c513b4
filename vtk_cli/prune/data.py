"""The real images: what a generator is searched on, and what its images are compared with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import timm.data
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.data.classification_folders import VAL_FOLDERS
from vtk_cli.data.digits import SPLITS, Split, load_glyphs, upscale
from vtk_cli.data.images import open_images, scan
from vtk_cli.data.walking import check_folder
from vtk_cli.errors import UserError
from vtk_cli.files import content_key
from vtk_cli.prune.image_sources import (
    CELEBA_TEST,
    CELEBA_TRAIN,
    CELEBA_VALIDATION,
    LSUN_FILE,
    ArrayReader,
    FileReader,
    LsunReader,
    Reader,
    celeba_list,
    cifar_folder,
    read_celeba,
    read_cifar,
)

DIGITS = "digits"
HOLDOUT = 0.2
SMALLEST_SIZE = 16
FEWEST = 2
"""Images in a part: one has no variance."""

_HASHED_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images as 8-bit squares, read when they are asked for, in a fixed order.

    Args:
        name: what they are called in results.
        ids: of the images, each once.
        reader: of the images by number.
        numbers: (N,) int64, which of the reader's images these are.
        size: side of the squares, in pixels.
        channels: 3, or 1 for grey.
    """

    name: str
    ids: tuple[str, ...]
    reader: Reader
    numbers: NDArray[np.int64]
    size: int
    channels: int

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """A content key over every image's name and stored bytes, and the size and channels that they come in."""
        digest = hashlib.sha256()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(self), _HASHED_AT_ONCE):
                part = slice(start, start + _HASHED_AT_ONCE)
                contents = pool.map(self._content_digest, self.numbers[part].tolist())
                for identity, content in zip(self.ids[part], contents, strict=True):
                    digest.update(hashlib.sha256(identity.encode(errors="surrogateescape")).digest() + content)
        return content_key({"images": digest.hexdigest(), "size": self.size, "channels": self.channels})

    def _content_digest(self, number: int) -> bytes:
        return hashlib.sha256(self.reader.content(number)).digest()

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images, `size` at a time: (B, C, S, S) uint8. The next batch is decoded while this one is used.

        The shorter side is scaled to S (bilinear with antialiasing), then the centre is cut out.

        Raises:
            BrokenImage: an image cannot be decoded.
        """
        transform = timm.data.create_transform(
            (self.channels, self.size, self.size),
            is_training=False,
            use_prefetcher=True,  # ends in uint8 arrays, not in normalised floats
            interpolation="bilinear",
            crop_pct=1.0,
        )
        mode = "RGB" if self.channels == 3 else "L"

        def square(number: int) -> Tensor:
            return torch.as_tensor(transform(self.reader.image(number).convert(mode)))

        parts = [self.numbers[start : start + size].tolist() for start in range(0, len(self), size)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead: Iterator[Tensor] = iter(())
            for part in [*parts, []]:
                now, ahead = list(ahead), pool.map(square, part)
                if now:
                    yield torch.stack(now)

    def part(self, name: str, places: Sequence[int]) -> Pictures:
        """The images at `places`, in ascending order."""
        kept = sorted(places)
        return replace(self, name=name, ids=tuple(self.ids[place] for place in kept), numbers=self.numbers[kept])


@dataclass(frozen=True)
class Splits:
    """What is searched on, and what it is measured on.

    Args:
        train: the images whose features are matched.
        held_out: images that no search sees.
        validation: images to select by, where the data set names some.
    """

    train: Pictures
    held_out: Pictures
    validation: Pictures | None = None


def open_data(
    name: str,
    *,
    size: int,
    channels: int,
    eval_data: str | None = None,
    holdout: float = HOLDOUT,
    seed: int = 0,
    console: Console,
) -> Splits:
    """Open real images.

    In this order a folder is: CelebA (with `list_eval_partition.csv` or `.txt`), CIFAR-10's Python batches, a database
    of LSUN, `train/` beside `val/` (or `validation`, `valid`, `test`), or images at any depth. Of the last and of LSUN
    a share is held out, drawn by `seed` from the images' names alone.

    Args:
        name: `digits`, or a folder.
        size: side of the squares, in pixels: a power of two, at least 16.
        channels: 3, or 1 for grey.
        eval_data: `digits` or a folder to measure on, in place of what would be held out: its test images, or all.
        holdout: the share to hold out, in (0, 1).
        seed: of the draw.
        console: told of broken images, each of which is left out.

    Raises:
        UserError: no such data, no images, fewer than two in a part, too many broken ones, or a value out of range.
    """
    if size < SMALLEST_SIZE or size & (size - 1):
        fix = f"choose a power of two, at least {SMALLEST_SIZE}"
        raise UserError(f"images of {size} pixels cannot be made", "--image-size", fix)
    if channels not in {1, 3}:
        raise UserError(f"images have 1 or 3 channels, not {channels}", "--channels")
    train, held_out, validation = _parts(name, size, channels, console)
    if eval_data is not None:
        if Path(eval_data).resolve() == Path(name).resolve() and held_out is None:
            console.warn(f"{name} is both searched and measured on: no image is held out")
        whole, test, _ = _parts(eval_data, size, channels, console)
        held_out = test or whole
    elif held_out is None:
        train, held_out = hold_out(train, holdout, seed)
    for part in (train, held_out):
        if len(part) < FEWEST:
            what = f"{len(part)} image(s) are too few for the statistics"
            raise UserError(what, part.name, f"at least {FEWEST} are needed, and for FID 10,000 or more")
    return Splits(train, held_out, validation)


def hold_out(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
    """What remains, and a share of the images: the same for a name and a seed, whatever else is in the folder's order.

    Raises:
        UserError: the share is not in (0, 1).
    """
    if not 0 < share < 1:
        raise UserError(f"a share of {share} cannot be held out", "--holdout", "choose a value between 0 and 1")
    order = _drawn(pictures.ids, f"hold out {seed}")
    count = round(share * len(order))
    described = f"{pictures.name} ({{}}{share:.0%} held out, seed {seed})"
    return (
        pictures.part(described.format("without the "), order[count:]),
        pictures.part(described.format("the "), order[:count]),
    )


def selection(splits: Splits, seed: int) -> tuple[Pictures, Pictures]:
    """What to select by and what to report on: no image is in both.

    The validation images where the data set names some, else the two halves of what is held out.
    """
    if splits.validation is not None:
        return splits.validation, splits.held_out
    order, held_out = _drawn(splits.held_out.ids, f"selection {seed}"), splits.held_out
    middle = len(order) // 2
    halves = (order[:middle], order[middle:])
    names = (f"{held_out.name}, half {half}" for half in ("for selection", "for the report"))
    validation, test = (held_out.part(name, half) for name, half in zip(names, halves, strict=True))
    return validation, test


def signed(images: Tensor) -> Tensor:
    """uint8 images as generators make them: float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


_Parts = tuple[Pictures, Pictures | None, Pictures | None]


def _parts(name: str, size: int, channels: int, console: Console) -> _Parts:
    """What to search on, and what the data set itself sets apart to measure on and to select by."""
    if name == DIGITS:
        train, test = (_digits(split, size, channels) for split in SPLITS)
        return train, test, None
    root = Path(name)
    check_folder(root)
    if (partitions := celeba_list(root)) is not None:
        return _celeba(root, partitions, size, channels, console)
    if (batches := cifar_folder(root)) is not None:
        train, test = (
            _whole(
                f"{name} {part}", ArrayReader(images), [f"{part}/{n:05d}" for n in range(len(images))], size, channels
            )
            for part, images in zip(("train", "test"), read_cifar(batches), strict=True)
        )
        return train, test, None
    if (root / LSUN_FILE).is_file():
        reader = LsunReader(root)
        return _whole(name, reader, [key.decode("ascii", "replace") for key in reader.keys], size, channels), None, None
    evaluated = next((root / part for part in VAL_FOLDERS if (root / part).is_dir()), None)
    if (root / "train").is_dir() and evaluated is not None:
        return _folder(root / "train", size, channels, console), _folder(evaluated, size, channels, console), None
    return _folder(root, size, channels, console), None, None


def _celeba(root: Path, partitions: Path, size: int, channels: int, console: Console) -> _Parts:
    found = {}
    for part, images in read_celeba(root, partitions).items():
        whole, _ = scan(images, console)
        found[part] = _whole(f"{root} partition {part}", FileReader(whole), whole.paths, size, channels)
    if CELEBA_TRAIN not in found:
        raise UserError("lists no image of partition 0, the train images", str(partitions))
    return found[CELEBA_TRAIN], found.get(CELEBA_TEST), found.get(CELEBA_VALIDATION)


def _folder(root: Path, size: int, channels: int, console: Console) -> Pictures:
    listed = open_images(root, labels="agree")
    images, _ = scan(listed, console)
    return _whole(str(root), FileReader(images), images.paths, size, channels)


def _digits(split: Split, size: int, channels: int) -> Pictures:
    """The digits at `size` x `size`, drawn up from their 8 x 8 cells."""
    glyphs = load_glyphs(split)
    reader = ArrayReader(np.rint(upscale(glyphs.ink, size) * 255).astype(np.uint8))
    ids = [f"{DIGITS}/{identity:06d}" for identity in glyphs.ids]
    return _whole(f"{DIGITS} {split}", reader, ids, size, channels)


def _whole(name: str, reader: Reader, ids: Sequence[str], size: int, channels: int) -> Pictures:
    return Pictures(name, tuple(ids), reader, np.arange(len(ids), dtype=np.int64), size, channels)


def _drawn(ids: Sequence[str], what: str) -> list[int]:
    """The places of `ids` in an order that depends on each name alone: more images do not shuffle the others."""

    def chance(place: int) -> bytes:
        return hashlib.sha256(f"{what}:{ids[place]}".encode(errors="surrogateescape")).digest()

    return sorted(range(len(ids)), key=chance)
