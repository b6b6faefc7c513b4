"""The images on which networks are compared: the embedded digits, or the user's own.

Images are kept as 8-bit squares, once for each way of cropping that the networks ask for (`View`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import timm.data
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.data.digits import load_digits_split
from vtk_cli.data.images import ImageList, decode_image, open_images, scan
from vtk_cli.errors import UserError
from vtk_cli.files import content_key

CANONICAL_CROP = 0.95
"""The canonical crop: short side to S / 0.95, then the centre S x S."""

_KEPT_VIEWS = 2
_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class View:
    """How an image becomes a square: resize the short side to `size / crop`, take the centre `size` x `size`.

    Args:
        size: side of the square, in pixels.
        crop: the fraction of the resized short side that is kept, in (0, 1].
        interpolation: of the resize, as timm names it.
    """

    size: int
    crop: float = CANONICAL_CROP
    interpolation: str = "bicubic"


@dataclass(frozen=True)
class ImageSet:
    """n labelled images, seen through any `View`.

    Args:
        name: what the images are called in results.
        ids: (n,) names of the images.
        labels: (n,) int64 classes; None where the networks are to agree on them.
        classes: how many classes the labels come from; None where there are no labels.
        fingerprint: a key of which images these are.
        pixels: view -> (n, 3, size, size) uint8.
    """

    name: str
    ids: tuple[str, ...]
    labels: Tensor | None
    classes: int | None
    fingerprint: str
    pixels: Callable[[View], Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def numbers(self) -> Tensor:
        """(n,) int64: a number for each image made from its id alone, to key what is random about it."""
        digests = (hashlib.sha256(identity.encode(errors="surrogateescape")).digest() for identity in self.ids)
        return torch.tensor([int.from_bytes(digest[:8], "big") >> 1 for digest in digests], dtype=torch.int64)


def digits_images(limit: int | None) -> ImageSet:
    """The validation digits (360, none of them in any train split), or `limit` of them, the first of every class.

    They are 32 x 32 in any view.
    """
    digits = load_digits_split("val")
    turn = (digits.labels[:, None] == digits.labels).cumsum(axis=1).diagonal()  # which of its class each digit is
    chosen = np.sort(np.argsort(turn, kind="stable")[:limit])
    pixels = torch.from_numpy(digits.images[chosen])
    every_id = digits.sample_ids("digits")
    ids = tuple(every_id[index] for index in chosen)
    fingerprint = content_key({"digits": ids})
    return ImageSet("digits", ids, torch.from_numpy(digits.labels[chosen]), 10, fingerprint, lambda _: pixels)


def folder_images(
    folder: Path,
    *,
    labels: Literal["folders", "agree"],
    class_map: Path | None,
    limit: int | None,
    seed: int,
    console: Console,
) -> ImageSet:
    """The user's images; unreadable ones are named, skipped and counted.

    Args:
        folder: an image folder in any layout that `data.images.open_images` reads.
        labels: `folders`, or `agree` to take the class on which all networks agree.
        class_map: JSON file {folder name: class index}.
        limit: at most this many images, the same number a class, chosen by `seed`.
        seed: of the choice.
        console: told of unreadable images and of progress.

    Raises:
        UserError: no images, too many unreadable ones, or a wrong class map.
    """
    listed = open_images(folder, labels=labels, class_map=class_map, limit=limit, seed=seed)
    images, _ = scan(listed, console)
    classes = None if images.labels is None else _class_indices(images)

    @lru_cache(maxsize=_KEPT_VIEWS)
    def pixels(view: View) -> Tensor:
        return _load(images, view, console)

    return ImageSet(
        name=str(folder),
        ids=images.paths,
        labels=None if classes is None else torch.from_numpy(classes),
        classes=None if classes is None else int(classes.max()) + 1,
        fingerprint=images.fingerprint,
        pixels=pixels,
    )


def _class_indices(images: ImageList) -> NDArray[np.int64]:
    """The labels; where the classes are some of ImageNet's WordNet ids, their places among ImageNet's 1,000."""
    labels = np.asarray(images.labels, dtype=np.int64)
    names = images.class_names
    if names is None or len(names) == 1000 or not all(_WORDNET_ID.fullmatch(name) for name in names):
        return labels
    synsets = timm.data.ImageNetInfo("imagenet-1k").label_names()
    places = {synset: place for place, synset in enumerate(synsets)}
    unknown = [name for name in names if name not in places]
    if unknown:
        raise UserError(
            f"{unknown[0]} is not one of ImageNet-1k's 1,000 classes", str(images.root), "give --class-map FILE.json"
        )
    return np.asarray([places[name] for name in names], dtype=np.int64)[labels]


def _load(images: ImageList, view: View, console: Console) -> Tensor:
    """Decode and crop every image on all cores: (n, 3, size, size) uint8."""
    transform = timm.data.create_transform(
        (3, view.size, view.size),
        is_training=False,
        use_prefetcher=True,  # ends in uint8 arrays, not in normalised floats
        interpolation=view.interpolation,
        crop_pct=view.crop,
    )
    squares = torch.empty((len(images.paths), 3, view.size, view.size), dtype=torch.uint8)

    def load(number: int) -> None:
        square = transform(decode_image(images.root / images.paths[number]))
        squares[number] = torch.as_tensor(np.asarray(square))

    with console.progress("loading images", len(squares)) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(load, range(len(squares))):
            progress.advance()
    return squares
