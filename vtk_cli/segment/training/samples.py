"""Samples of SOLOv2's training and the batches made of them; and images as they are looked at afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as F

from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.scenes import normalised, scene_of
from vtk_cli.data.points import PointImage
from vtk_cli.engine.workers import outlive_stop_signals
from vtk_cli.segment.solov2.padding import pad_images, padded_size
from vtk_cli.segment.solov2.predictions import Frame, Target
from vtk_cli.segment.training.augmentation import Augmentation, Resize


@dataclass(frozen=True)
class Sample:
    """An image to learn from.

    Args:
        image: float (3, H, W), normalised.
        target: its objects.
        lost: (u, 2) x, y: clicks without a mask.
    """

    image: Tensor
    target: Target
    lost: Tensor


@dataclass(frozen=True)
class Batch:
    """Padded images (B, 3, H, W), and for each its objects and its clicks without a mask (u, 2)."""

    images: Tensor
    targets: tuple[Target, ...]
    lost: tuple[Tensor, ...]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same on another device."""
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            tuple(target.to(device, non_blocking=non_blocking) for target in self.targets),
            tuple(each.to(device, non_blocking=non_blocking) for each in self.lost),
        )


class TrainingImages(Dataset[Sample]):
    """Augmented images that have objects; crowds are left out.

    Args:
        dataset: with at least one object.
        augment: ends in the size the network takes.
        lost: image id -> (u, 2) clicks without a mask, in pixels of the image.
    """

    def __init__(self, dataset: DetectionSet, augment: Augmentation, lost: Mapping[int, Tensor] | None = None) -> None:
        lost = lost or {}
        self._records = [record for record in dataset.records if bool((~record.crowd).any()) or record.id in lost]
        self._augment, self._lost = augment, lost

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        """Raises `BrokenImage` where the image can no longer be read."""
        record = self._records[index]
        clicks = self._lost.get(record.id, torch.zeros(0, 2))
        scene, clicks = self._augment(scene_of(record, masks=True, crowds=False), clicks)
        if scene.masks is None:
            raise ValueError("the scene was read with masks")
        target = Target(scene.labels, scene.masks.as_subclass(Tensor).bool(), scene.boxes.as_subclass(Tensor))
        return Sample(normalised(scene.image), target, clicks)

    def name_of(self, index: int) -> str:
        """The path of an image."""
        return str(self._records[index].file)


@dataclass(frozen=True)
class Collate:
    """Makes a batch: images padded with zeros at the right and the bottom, to multiples of `multiple`."""

    multiple: int

    def __call__(self, samples: Sequence[Sample]) -> tuple[Batch]:
        """A batch of samples."""
        sizes = [(sample.image.shape[1], sample.image.shape[2]) for sample in samples]
        images = pad_images([sample.image for sample in samples], padded_size(sizes, self.multiple))
        return (Batch(images, tuple(sample.target for sample in samples), tuple(sample.lost for sample in samples)),)


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image as the network sees it by itself.

    Args:
        index: in the sequence it comes from.
        pixels: float (1, 3, H, W), normalised and padded.
        frame: how it lies there.
    """

    index: int
    pixels: Tensor
    frame: Frame


def seen_image(image: Tensor, resize: Resize, multiple: int, index: int = 0) -> SeenImage:
    """An image uint8 (3, H, W) as the network sees it."""
    height, width = image.shape[1:]
    size = resize.extent(height, width)
    pixels = normalised(F.resize(image, list(size), antialias=True) if size != (height, width) else image)
    padded = padded_size([size], multiple)
    return SeenImage(index, pad_images([pixels], padded), Frame((height, width), size, padded))


class _Images(Dataset[SeenImage]):
    def __init__(self, images: Sequence[ImageRecord | PointImage], resize: Resize, multiple: int) -> None:
        self._images, self._resize, self._multiple = images, resize, multiple

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> SeenImage:
        pixels = F.pil_to_tensor(self._images[index].read())
        return seen_image(pixels, self._resize, self._multiple, index)


def seen_images(
    images: Sequence[ImageRecord | PointImage], resize: Resize, multiple: int, workers: int
) -> Iterator[SeenImage]:
    """Images one after another, read ahead by `workers` processes; none is padded for another's sake.

    Raises:
        BrokenImage: an image can no longer be read.
    """
    loader: DataLoader[SeenImage] = DataLoader(
        _Images(images, resize, multiple),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=outlive_stop_signals,
        generator=torch.Generator(),  # its own: the loader draws from it
    )
    yield from loader
