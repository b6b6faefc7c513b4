"""The samples of training and evaluation: decoded, augmented, with their points; broken files replaced and named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vtk_cli.console import Console
from vtk_cli.data.augmentation import Transform
from vtk_cli.data.byproducts.targets import PointTargets
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.images import BROKEN_SHARE, NAMED, BrokenImage
from vtk_cli.data.pointed import NO_FLAGS, NO_POINTS, PointedImage
from vtk_cli.engine.batches import Batches
from vtk_cli.errors import UserError

PATIENCE = 100
"""After so many broken images in a row a sample gives up: the folder is gone, or holds no images at all."""
ABSENT = 0.5
"""What a point that is not there holds."""


class AugmentedImages(Dataset[tuple[Any, ...]]):
    """The samples of a source.

    A sample is (image, target, broken), or with points (image, target, points, present, broken):
    image uint8 (3, H, W); target int64 () or float32 (K,); points float32 (P, 2), fractions of width and height of the
    image in [0, 1], 0.5 where absent; present bool (P,); broken: whether the file of this sample could not be read, so
    that all of it is that of the next one that could. `WatchedBatches` takes the flag off.

    Args:
        source: the images.
        transform: what is done to each.
        points: those of each sample of `source`, P to a sample.
        drop_outside: the class of a point that the transform takes out of the image gets the target 0, as the loader
            published with COCO-AB has it (arXiv 2303.17595); for multi-label sources, a point for each class.
    """

    def __init__(
        self,
        source: ImageSource,
        transform: Transform,
        points: PointTargets | None = None,
        *,
        drop_outside: bool = False,
    ) -> None:
        if points is not None and len(points) != len(source):
            raise ValueError(f"points of {len(points)} samples for {len(source)} images")
        if drop_outside and (points is None or points.present.shape != source.targets.shape):
            raise ValueError("to drop classes takes a point for each sample and class")
        self._source, self._transform, self._points, self._drop_outside = source, transform, points, drop_outside

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        readable, image = self._read(index)
        target = self._source.targets[readable]
        if self._points is None:
            done = self._transform(PointedImage(image, NO_POINTS, NO_FLAGS))
            return _tensor(done.image), target, readable != index
        before = self._points.present[readable]
        pixels = self._points.points[readable].numpy() * np.array(image.size, np.float64)
        done = self._transform(PointedImage(image, pixels, before.numpy()))
        present = torch.from_numpy(done.present.copy())
        points = torch.from_numpy((done.points / done.image.size).astype(np.float32))
        points = torch.where(present[:, None], points.clamp(0, 1), ABSENT)
        if self._drop_outside:
            target = target * ~(before & ~present)
        return _tensor(done.image), target, points, present, readable != index

    def _read(self, index: int) -> tuple[int, Image.Image]:
        """The image of `index`, or of the first after it that can be read, the first coming after the last."""
        broken: list[BrokenImage] = []
        for offset in range(min(PATIENCE, len(self))):
            readable = (index + offset) % len(self)
            try:
                return readable, self._source.read(readable)
            except BrokenImage as error:
                broken.append(error)
        raise UserError(
            f"{len(broken)} images in a row cannot be read, first {broken[0].where} ({broken[0].what})",
            self._source.name,
        )


class WatchedBatches:
    """Batches of `AugmentedImages` without their flag; files that could not be read are named, once each.

    Args:
        batches: what they are taken from.
        source: of the samples.
        console: told the broken files and the reasons.
    """

    def __init__(self, batches: Batches, source: ImageSource, console: Console) -> None:
        self._batches, self._source, self._console = batches, source, console
        self._reason_of: dict[int, str] = {}

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._batches.steps_per_epoch

    @property
    def broken(self) -> dict[int, str]:
        """The reasons by index, of the samples found broken so far."""
        return dict(self._reason_of)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, ...]]:
        """The batches of an epoch from number `start` on, each `(indices, images, targets[, points, present])`.

        Raises:
            UserError: more than one, and more than 1 %, of the images are broken.
        """
        for indices, *rest, broken in self._batches.epoch(epoch, start):
            if broken.any():
                self._name(indices[broken.cpu()])
            yield indices, *rest

    def name_of(self, index: int) -> str:
        """What the source calls a sample."""
        return self._source.names[index]

    def close(self) -> None:
        """End the worker processes, where there are any."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    def _name(self, indices: Tensor) -> None:
        for index in indices.tolist():
            if index in self._reason_of:
                continue
            self._reason_of[index] = reason = self._why(index)
            self._console.warn(f"{reason}; the next image takes its place")
        count = len(self._reason_of)
        if count > max(1, int(BROKEN_SHARE * len(self._source))):
            named = ", ".join(list(self._reason_of.values())[:NAMED])
            what = f"{count} of {len(self._source)} images cannot be read so far: {named}"
            raise UserError(what, self._source.name, "replace or remove them")

    def _why(self, index: int) -> str:
        try:
            self._source.read(index)
        except BrokenImage as error:
            return f"{error.where} ({error.what})"
        return f"{self._source.names[index]} (could not be read at first, but can be now)"


def _tensor(image: Image.Image) -> Tensor:
    """uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
