"""Images with clicks, read and checked: what point-guided inference takes, whatever the format of the files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vtk_cli.data.detection.outlines import Bools, Floats
from vtk_cli.data.images import BrokenImage, decode_image

Source = Literal["point", "point_coords", "keypoints", "segmentation", "bbox"]
SOURCES: tuple[Source, ...] = ("point", "point_coords", "keypoints", "segmentation", "bbox")
"""What a click can be taken from; of several the first here counts."""
SLACK = 1.0
"""How many pixels a click may lie beyond the centres of the outermost pixels: tools count from corners, or round."""


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset by label: their names, and the ids that its files call them."""

    names: tuple[str, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PointImage:
    """An image and its n clicks.

    Args:
        file: the image.
        id: what results call it.
        width, height: of the upright image.
        points: float64 (n, 2): x, y in pixels of the upright image, in [0, width - 1] x [0, height - 1]; (0, 0) is the
            centre of the top left pixel.
        labels: int64 (n,): contiguous, from 0.
        annotation_ids: int64 (n,), those of the file.
        sources: n: what each click was taken from.
    """

    file: Path
    id: int
    width: int
    height: int
    points: Floats
    labels: npt.NDArray[np.int64]
    annotation_ids: npt.NDArray[np.int64]
    sources: tuple[Source, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def clicks(self, kept: Bools) -> PointImage:
        """The same image with the clicks that `kept`, bool (n,), is true for."""
        sources = tuple(source for source, stays in zip(self.sources, kept, strict=True) if stays)
        return PointImage(
            self.file,
            self.id,
            self.width,
            self.height,
            self.points[kept],
            self.labels[kept],
            self.annotation_ids[kept],
            sources,
        )

    def read(self) -> Image.Image:
        """The upright RGB image.

        Raises:
            BrokenImage: it cannot be decoded, or no longer has the size it had when the points were opened.
        """
        image = decode_image(self.file)
        if image.size != (self.width, self.height):
            size = f"{image.width}x{image.height}, not {self.width}x{self.height}"
            raise BrokenImage(f"is {size} as when the points were opened", str(self.file))
        return image


@dataclass(frozen=True, eq=False)
class PointSet:
    """Images with clicks.

    Args:
        name: the file they come from.
        images: in the order of the file.
        classes: of the labels.
        left_out: how often each fault was found in entries that were left out; empty for a clean file.
    """

    name: str
    images: tuple[PointImage, ...]
    classes: Classes
    left_out: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def clicks(self) -> int:
        """How many clicks there are."""
        return sum(map(len, self.images))

    @cached_property
    def without_click(self) -> int:
        """How many images have no click."""
        return sum(not len(image) for image in self.images)

    @cached_property
    def sources(self) -> dict[Source, int]:
        """How many clicks come from each source that any comes from."""
        counts = Counter(source for image in self.images for source in image.sources)
        return {source: counts[source] for source in SOURCES if counts[source]}

    def class_counts(self) -> npt.NDArray[np.int64]:
        """int64 (K,): how many clicks each class has."""
        labels = [image.labels for image in self.images]
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(self.classes.names))

    def summary(self) -> str:
        """What there is, in a line."""
        parts = [f"{len(self):,} images", f"{self.clicks:,} clicks of {len(self.classes.names)} classes"]
        taken = ", ".join(f"{count:,} from {source}" for source, count in self.sources.items())
        parts += [f"({taken})"] if taken else []
        summary = f"{self.name}: {parts[0]}, {' '.join(parts[1:])}"
        return summary + (f", {self.without_click:,} images without a click" if self.without_click else "")
