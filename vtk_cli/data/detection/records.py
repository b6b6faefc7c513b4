"""Images with objects, read and checked: what training and evaluation take, whatever the format of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vtk_cli.data.detection.outlines import Bools, Floats, Outline, outline_mask
from vtk_cli.data.images import BrokenImage, decode_image
from vtk_cli.errors import UserError

Split = Literal["train", "val", "test"]
Format = Literal["coco", "yolo", "voc"]
NAMED = 10
"""How many classes an error names."""


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """An image and its n objects, in pixels of the upright image.

    Args:
        file: the image.
        id: what results call it.
        width, height: of the upright image.
        boxes: float64 (n, 4): x1, y1, x2, y2, inside the image, x1 < x2 and y1 < y2.
        given: float64 (n, 4): the same as x, y, width, height, to the bit as a COCO file gives them, so also where they
            reach less than a pixel outside: what evaluation compares with.
        labels: int64 (n,): contiguous, from 0.
        area: float64 (n,), above 0: as the file gives it, else of the outline, else of the box.
        crowd: bool (n,): regions of many objects, or objects too hard to judge. They are not trained on, and what is
            detected there is not counted as wrong (COCO's `iscrowd`).
        outlines: n, or None where an object has a box only.
    """

    file: Path
    id: int
    width: int
    height: int
    boxes: Floats
    given: Floats
    labels: npt.NDArray[np.int64]
    area: Floats
    crowd: Bools
    outlines: tuple[Outline | None, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def masks(self) -> Bools:
        """bool (n, height, width): the pixels of each object; of one without an outline, those of its box.

        A pixel belongs to a box that holds its centre.
        """
        masks = np.zeros((len(self), self.height, self.width), np.bool_)
        for mask, outline, box in zip(masks, self.outlines, self.boxes, strict=True):
            if outline is None:
                left, top, right, bottom = np.ceil(box - 0.5).astype(int)
                mask[top:bottom, left:right] = True
            else:
                mask[:] = outline_mask(outline, self.height, self.width)
        return masks

    def objects(self, kept: Bools) -> ImageRecord:
        """The same image with the objects that `kept`, bool (n,), is true for."""
        outlines = tuple(outline for outline, stays in zip(self.outlines, kept, strict=True) if stays)
        return replace(
            self,
            boxes=self.boxes[kept],
            given=self.given[kept],
            labels=self.labels[kept],
            area=self.area[kept],
            crowd=self.crowd[kept],
            outlines=outlines,
        )

    def read(self) -> Image.Image:
        """The upright RGB image.

        Raises:
            BrokenImage: it cannot be decoded, or no longer has the size it had when the dataset was opened.
        """
        image = decode_image(self.file)
        if image.size != (self.width, self.height):
            size = f"{image.width}x{image.height}, not {self.width}x{self.height}"
            raise BrokenImage(f"is {size} as when the dataset was opened", str(self.file))
        return image


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """A split of a dataset.

    Args:
        name: what it is called in messages: its annotation file or folder.
        kind: the format of its files.
        records: in the order of the files.
        class_names: by label.
        category_ids: by label; what results call the classes.
        left_out: how often each fault was found in entries that were left out or mended; empty for a clean dataset.
    """

    name: str
    kind: Format
    records: tuple[ImageRecord, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    left_out: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def objects(self) -> int:
        """How many objects there are that are no crowds."""
        return sum(int((~record.crowd).sum()) for record in self.records)

    @cached_property
    def outlined(self) -> int:
        """How many of `objects` have an outline."""
        return sum(
            outline is not None
            for record in self.records
            for outline, crowd in zip(record.outlines, record.crowd, strict=True)
            if not crowd
        )

    @cached_property
    def crowds(self) -> int:
        """How many crowds there are."""
        return sum(int(record.crowd.sum()) for record in self.records)

    @cached_property
    def empty(self) -> int:
        """How many images have no object that is no crowd."""
        return sum(bool(record.crowd.all()) for record in self.records)

    @cached_property
    def most_objects(self) -> int:
        """The objects that are no crowds in the image that has most of them."""
        return max((int((~record.crowd).sum()) for record in self.records), default=0)

    def class_counts(self) -> npt.NDArray[np.int64]:
        """int64 (K,): how many of `objects` each class has."""
        labels = [record.labels[~record.crowd] for record in self.records]
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(self.class_names))

    def first(self, count: int) -> DetectionSet:
        """The first `count` images alone."""
        return replace(self, records=self.records[:count])

    def summary(self) -> str:
        """What the split holds, in a line."""
        parts = [f"{len(self):,} images", f"{self.objects:,} objects of {len(self.class_names)} classes"]
        parts += [f"{self.outlined:,} with masks"] if self.outlined else []
        parts += [f"{self.crowds:,} crowd regions, which are not trained on"] if self.crowds else []
        parts += [f"{self.empty:,} images without objects"] if self.empty else []
        return f"{self.name}: {', '.join(parts)}"


def require_objects(dataset: DetectionSet) -> None:
    """Refuse a dataset that nothing can be learnt from.

    Raises:
        UserError: no image has an object.
    """
    if not dataset.objects:
        raise UserError(f"0 annotated images of {len(dataset)}, so nothing to train on", dataset.name)


def require_outlines(dataset: DetectionSet) -> None:
    """Refuse a dataset whose objects have no masks to learn.

    Raises:
        UserError: some object has no outline.
    """
    if dataset.outlined < dataset.objects:
        what = f"masks requested but {dataset.outlined} of {dataset.objects} annotations have segmentation"
        raise UserError(what, dataset.name, "train without masks, or add them")


def check_same_classes(train: DetectionSet, other: DetectionSet) -> None:
    """Refuse two splits whose labels do not mean the same.

    Raises:
        UserError: names or category ids differ.
    """
    sides = [list(zip(split.category_ids, split.class_names, strict=True)) for split in (train, other)]
    if sides[0] == sides[1]:
        return
    differing = [
        f"{len(only)} only in {split.name} ({_some([f'{identity} {name}' for identity, name in only])})"
        for split, only in (
            (train, [pair for pair in sides[0] if pair not in sides[1]]),
            (other, [pair for pair in sides[1] if pair not in sides[0]]),
        )
        if only
    ]
    raise UserError(f"the classes differ: {'; '.join(differing)}", fix="give all splits the same classes")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
