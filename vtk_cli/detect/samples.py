"""The samples of a detection dataset and the batches made of them: images read, augmented, normalised and padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import box_convert

from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.scenes import Scene, normalised, scene_of
from vtk_cli.detect.mosaic import mixup, mosaic
from vtk_cli.detect.predictions import PaddedImages, Target

Sample = tuple[Tensor, Target]
"""A normalised image, float32 (3, H, W), and what is on it."""
Transform = Callable[[Scene], Scene]


@dataclass(frozen=True)
class Mixing:
    """How often images are mixed, and how large a mosaic is.

    Args:
        side: of a mosaic, in pixels.
        mosaic: the probability that a sample is a mosaic.
        mixup: the probability that it is blended with another one besides.
    """

    side: int
    mosaic: float = 0.5
    mixup: float = 0.3


class TrainingImages(Dataset[Sample]):
    """Augmented images; crowds are left out.

    The random choices are drawn from torch's global generator, which `LoaderBatches` seeds for each sample.

    Args:
        dataset: with at least one image.
        transform: the augmentation, ends in the size the network takes.
        masks: with the objects' masks.
        mixing: of several images in one, before `transform`; None for none. For the last epochs, make a dataset
            without.
    """

    def __init__(
        self, dataset: DetectionSet, transform: Transform, *, masks: bool = False, mixing: Mixing | None = None
    ) -> None:
        self._dataset, self._transform, self._masks, self._mixing = dataset, transform, masks, mixing

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Raises `BrokenImage` where the image can no longer be read."""
        scene = self._scene(index)
        if self._mixing is not None and float(torch.rand(())) < self._mixing.mosaic:
            scene = mosaic([scene, *(self._any_scene() for _ in range(3))], self._mixing.side)
        if self._mixing is not None and float(torch.rand(())) < self._mixing.mixup:
            scene = mixup(scene, self._any_scene())
        return sample_of(self._transform(scene))

    def name_of(self, index: int) -> str:
        """The path of an image; others may have been mixed into it."""
        return str(self._dataset.records[index].file)

    def _scene(self, index: int) -> Scene:
        return scene_of(self._dataset.records[index], masks=self._masks, crowds=False)

    def _any_scene(self) -> Scene:
        return self._scene(int(torch.randint(len(self), ())))


class EvaluationImages(Dataset[Sample]):
    """Images as they are evaluated, with all their objects, crowds among them.

    Args:
        dataset: the images.
        transform: the resize.
        masks: with the objects' masks.
    """

    def __init__(self, dataset: DetectionSet, transform: Transform, *, masks: bool = False) -> None:
        self._dataset, self._transform, self._masks = dataset, transform, masks

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Raises `BrokenImage` where the image can no longer be read."""
        return sample_of(self._transform(scene_of(self._dataset.records[index], masks=self._masks, crowds=True)))


def sample_of(scene: Scene) -> Sample:
    """The network's input, normalised with ImageNet's mean and deviation, and its target."""
    height, width = scene.size
    extent = torch.tensor([width, height, width, height], dtype=torch.float32)
    target = Target(
        labels=scene.labels,
        boxes=box_convert(scene.boxes.as_subclass(Tensor), "xyxy", "cxcywh") / extent,
        masks=None if scene.masks is None else scene.masks.as_subclass(Tensor),
        area=scene.area,
        crowd=scene.crowd,
        image_id=scene.image_id,
        original_size=scene.original_size,
        size=(height, width),
    )
    return normalised(scene.image), target


def pixels(image: Tensor) -> Tensor:
    """uint8 (3, H, W): what `normalised` was given."""
    mean, deviation = (
        torch.tensor(values, device=image.device).view(3, 1, 1)
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    return ((image * deviation + mean) * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Collate:
    """Makes a batch of samples: images padded at the right and the bottom with zeros, and the padding masked.

    Args:
        side: pad to a square of so many pixels; None pads to the largest height and width of the batch.
    """

    side: int | None = None

    def __call__(self, samples: Sequence[Sample]) -> tuple[PaddedImages, tuple[Target, ...]]:
        """Raises `ValueError` for an image that is larger than `side`."""
        return padded_images([image for image, _ in samples], self.side), tuple(target for _, target in samples)


def padded_images(images: Sequence[Tensor], side: int | None = None) -> PaddedImages:
    """A batch of normalised images; see `Collate`.

    Raises:
        ValueError: an image is larger than `side`.
    """
    sizes = torch.tensor([image.shape[-2:] for image in images], dtype=torch.int64)
    height, width = sizes.amax(dim=0).tolist() if side is None else (side, side)
    if bool((sizes > torch.tensor([height, width])).any()):
        raise ValueError(f"images of {sizes.tolist()} do not fit {height}x{width}")
    batch = torch.zeros(len(images), 3, height, width)
    mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for number, image in enumerate(images):
        rows, columns = image.shape[-2:]
        batch[number, :, :rows, :columns] = image
        mask[number, :rows, :columns] = False
    return PaddedImages(batch, mask, sizes)
