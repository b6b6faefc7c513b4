"""Labelled images as training and evaluation take them, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Labelled images; picklable, so that worker processes can read them.

    Args:
        name: what it is called in messages, e.g. its folder.
        class_names: by label.
        targets: int64 (N,): the label of each image; or float32 (N, K), ones and zeros, where an image may have many.
        read: the upright RGB image of an index; raises `BrokenImage` where there is none.
        names: of the samples, as byproducts and predictions name them: the path below the split's folder with `/`
            between, or `digits/000123`.
        ids: the samples' numbers, where their data set numbers them (COCO).
    """

    name: str
    class_names: tuple[str, ...]
    targets: Tensor
    read: Callable[[int], Image.Image]
    names: Sequence[str]
    ids: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have many labels."""
        return self.targets.ndim == 2

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the upright image of an index, in pixels; of a file no more than its header is decoded.

        Raises:
            BrokenImage: there is no image.
        """
        return _size(self.read, index)

    def subset(self, indices: Sequence[int]) -> ImageSource:
        """The samples at `indices`, in that order."""
        kept = [int(index) for index in indices]
        names = tuple(self.names[index] for index in kept)
        ids = None if self.ids is None else tuple(self.ids[index] for index in kept)
        targets = self.targets[torch.tensor(kept, dtype=torch.int64)]
        return ImageSource(self.name, self.class_names, targets, _Chosen(self.read, kept), names, ids)


@dataclass(frozen=True, eq=False)
class Splits:
    """A dataset for training: `val` is None where there is none to evaluate on."""

    train: ImageSource
    val: ImageSource | None


@dataclass(frozen=True, eq=False)
class _Chosen:
    read: Callable[[int], Image.Image]
    kept: Sequence[int]

    def __call__(self, index: int) -> Image.Image:
        return self.read(self.kept[index])

    def size(self, index: int) -> tuple[int, int]:
        return _size(self.read, self.kept[index])


def _size(read: Callable[[int], Image.Image], index: int) -> tuple[int, int]:
    """What the reader says; where it does not know sizes apart from images, that of the image."""
    of_reader: Callable[[int], tuple[int, int]] | None = getattr(read, "size", None)
    return read(index).size if of_reader is None else of_reader(index)
