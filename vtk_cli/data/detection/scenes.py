"""An image with its objects while it is augmented: what is done to the pixels is done to boxes and masks.

Pixels stay 8-bit RGB until `normalised` makes floats of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from vtk_cli.data.detection import ImageRecord

LEAST_SIDE = 1e-3
"""Pixels; a box that is narrower after a crop is gone."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and n objects.

    Args:
        image: uint8 (3, H, W).
        boxes: float32 (n, 4), xyxy in pixels of `image`; its canvas is (H, W).
        labels: (n,) int64.
        masks: bool (n, H, W); None where none are used.
        area: float32 (n,), in pixels of the original image.
        crowd: (n,) bool.
        image_id: of the data file.
        original_size: height and width of the upright original image.
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    masks: tv_tensors.Mask | None
    area: Tensor
    crowd: Tensor
    image_id: int
    original_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image as it is now."""
        height, width = self.image.shape[-2:]
        return int(height), int(width)

    def moved(self, operation: Callable[..., Tensor]) -> Scene:
        """The result of a geometric operation on the image, the boxes and the masks.

        Args:
            operation: of `torchvision.transforms.v2.functional`, its arguments bound.
        """
        masks = None if self.masks is None else operation(self.masks)
        return replace(self, image=operation(self.image), boxes=operation(self.boxes), masks=masks)

    def painted(self, image: Tensor) -> Scene:
        """Other pixels of the same size, in the same places."""
        return replace(self, image=tv_tensors.Image(image))

    def objects(self, kept: Tensor) -> Scene:
        """The same image with the objects that `kept`, bool (n,), is true for."""
        return replace(
            self,
            boxes=_boxes(self.boxes[kept], self.size),
            labels=self.labels[kept],
            masks=None if self.masks is None else tv_tensors.Mask(self.masks[kept]),
            area=self.area[kept],
            crowd=self.crowd[kept],
        )


def scene_of(record: ImageRecord, *, masks: bool, crowds: bool) -> Scene:
    """Read an image with its objects.

    Args:
        record: of the dataset.
        masks: with the objects' masks too; an object without an outline has that of its box.
        crowds: with the crowds too; training goes without.

    Raises:
        BrokenImage: the image cannot be read.
    """
    kept = record if crowds else record.objects(~record.crowd)
    image = _pixels(record.read())
    return Scene(
        image,
        _boxes(torch.from_numpy(kept.boxes).float(), (record.height, record.width)),
        torch.from_numpy(kept.labels),
        tv_tensors.Mask(torch.from_numpy(kept.masks())) if masks else None,
        torch.from_numpy(kept.area).float(),
        torch.from_numpy(kept.crowd),
        record.id,
        (record.height, record.width),
    )


def image_scene(image: Image.Image) -> Scene:
    """An image by itself, as prediction takes it."""
    nothing = torch.zeros(0)
    return Scene(
        _pixels(image),
        _boxes(torch.zeros(0, 4), (image.height, image.width)),
        nothing.long(),
        None,
        nothing,
        nothing.bool(),
        0,
        (image.height, image.width),
    )


def flipped(scene: Scene) -> Scene:
    """Left and right exchanged."""
    return scene.moved(F.horizontal_flip)


def resized(scene: Scene, height: int, width: int) -> Scene:
    """Scaled to `height` x `width`: bilinear with antialiasing; masks by nearest pixels, boxes by each axis' ratio."""
    if scene.size == (height, width):
        return scene
    boxes = F.resize(scene.boxes, [height, width])
    masks = None if scene.masks is None else tv_tensors.Mask(_resized_masks(scene.masks, height, width))
    return replace(scene, image=F.resize(scene.image, [height, width], antialias=True), boxes=boxes, masks=masks)


def cropped(scene: Scene, top: int, left: int, height: int, width: int, *, least_visible: float = 0.0) -> Scene:
    """The part of `height` x `width` whose corner is (left, top); parts outside the image are black.

    Args:
        scene: the whole.
        top, left, height, width: in pixels.
        least_visible: the share of an object's box, in [0, 1), that must be inside for it to be kept; with 0 any area
            above nothing.
    """
    moved = scene.moved(lambda part: F.crop(part, top, left, height, width))
    inside, whole = moved.boxes[:, 2:] - moved.boxes[:, :2], scene.boxes[:, 2:] - scene.boxes[:, :2]
    share = inside.prod(dim=1) / whole.prod(dim=1).clamp(min=LEAST_SIDE**2)
    kept = (inside > LEAST_SIDE).all(dim=1) & (share > least_visible)
    if moved.masks is not None:
        kept &= moved.masks.flatten(1).any(dim=1)
    return moved.objects(kept)


def padded(scene: Scene, border: tuple[int, int, int, int], fill: tuple[int, int, int]) -> Scene:
    """With a border of the colour `fill`: so many pixels at the left, top, right and bottom."""

    def pad(part: Tensor) -> Tensor:
        colour = list(fill) if isinstance(part, tv_tensors.Image) else 0
        moved: Tensor = F.pad(part, list(border), fill=colour)
        return moved

    return scene.moved(pad)


def joined(scenes: list[Scene], image: Tensor) -> Scene:
    """The objects of scenes of one size on an image of that size; it is called what the first is called."""
    first = scenes[0]
    masks = None
    if first.masks is not None:
        masks = tv_tensors.Mask(torch.cat([scene.masks for scene in scenes if scene.masks is not None]))
    return replace(
        first,
        image=tv_tensors.Image(image),
        boxes=_boxes(torch.cat([scene.boxes.as_subclass(Tensor) for scene in scenes]), first.size),
        labels=torch.cat([scene.labels for scene in scenes]),
        masks=masks,
        area=torch.cat([scene.area for scene in scenes]),
        crowd=torch.cat([scene.crowd for scene in scenes]),
    )


def normalised(image: Tensor) -> Tensor:
    """float32 (3, H, W) with ImageNet's mean 0 and deviation 1 a channel, of uint8 (3, H, W)."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (image.as_subclass(Tensor).float() / 255 - mean) / deviation


def _resized_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Each pixel takes the old one at its centre (torchvision's `nearest` takes the one at its corner)."""
    if not len(masks):
        return torch.zeros(0, height, width, dtype=torch.bool)
    shapes = masks.as_subclass(Tensor)[:, None].to(torch.uint8)
    return interpolate(shapes, (height, width), mode="nearest-exact")[:, 0].bool()


def _pixels(image: Image.Image) -> tv_tensors.Image:
    return F.to_image(image)


def _boxes(boxes: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(boxes.as_subclass(Tensor), format="XYXY", canvas_size=size)
