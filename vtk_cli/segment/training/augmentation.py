"""What is done to an image with its masks before the network learns from it (arXiv 2003.10152, Section 4).

Everything random is drawn from torch's global generator, which training seeds for each sample. Along with an image go
clicks without a mask, (u, 2) x, y in its pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors

from vtk_cli.data.detection.scenes import Scene, flipped, resized
from vtk_cli.segment.solov2.padding import resized_size
from vtk_cli.segment.solov2.predictions import tight_boxes

Augmented = tuple[Scene, Tensor]
Augmentation = Callable[[Scene, Tensor], Augmented]
"""From a scene and clicks to others of them."""

LONG = 1333 / 800
"""The longest side of an image over its shorter one."""
_SIDES = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0)
"""The published sizes, 640 to 800 pixels in steps of 32, over the size of evaluation."""


@dataclass(frozen=True)
class Resize:
    """As in evaluation: the shorter side `short` pixels, the longer at most 1333 / 800 of that."""

    short: int

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image afterwards."""
        return resized_size(height, width, self.short, round(self.short * LONG))

    def __call__(self, scene: Scene, clicks: Tensor) -> Augmented:
        """The scene resized."""
        return _resized(scene, clicks, self.extent(*scene.size))


@dataclass(frozen=True)
class PaperTraining:
    """A flip by half, and one of six sizes.

    Args:
        short: the shorter side in evaluation, the largest of the six.
    """

    short: int

    def __call__(self, scene: Scene, clicks: Tensor) -> Augmented:
        """An augmented scene."""
        if float(torch.rand(())) < 0.5:
            scene = flipped(scene)
            clicks = torch.stack([scene.size[1] - 1 - clicks[:, 0], clicks[:, 1]], 1)
        share = _SIDES[int(torch.randint(len(_SIDES), ()))]
        size = resized_size(*scene.size, round(self.short * share), round(self.short * LONG))
        return _resized(scene, clicks, size)


@dataclass(frozen=True)
class DigitsTraining:
    """Another size and place, other channels and gains; no flips, since mirrored digits are none.

    Args:
        short: the shorter side in evaluation.
        scales: the range of the factor of the size.
        shift: the most that the image moves, as a share of each side; beyond its rim it is mirrored.
        gains: the range of the factor of each channel.
    """

    short: int
    scales: tuple[float, float] = (0.8, 1.3)
    shift: float = 0.15
    gains: tuple[float, float] = (0.6, 1.4)

    def __call__(self, scene: Scene, clicks: Tensor) -> Augmented:
        """An augmented scene; objects of which nothing is left are left out."""
        scene, clicks = Resize(self.short)(scene, clicks)
        low, high = self.scales
        scale = low + (high - low) * float(torch.rand(()))
        offset = (2 * torch.rand(2) - 1) * self.shift * 2  # in halves of a side
        moved = _moved(scene, scale, offset)
        height, width = scene.size
        extent = torch.tensor([width, height], dtype=torch.float64)
        # what stands at q in the new image was at (q - offset) / scale in the old one, in [-1, 1]
        normal = ((clicks.double() + 0.5) / extent * 2 - 1) * scale + offset
        clicks = (normal + 1) / 2 * extent - 0.5
        inside = ((clicks > -0.5) & (clicks < extent - 0.5)).all(1)
        return moved.painted(self._coloured(moved.image)), clicks[inside]

    def _coloured(self, image: Tensor) -> Tensor:
        pixels = image.as_subclass(Tensor).float()
        if float(torch.rand(())) < 0.5:
            pixels = pixels[torch.randperm(3)]
        low, high = self.gains
        return (pixels * (low + (high - low) * torch.rand(3, 1, 1))).round().clamp(0, 255).to(torch.uint8)


def augmentation(name: str, short: int) -> Augmentation:
    """The augmentation called `paper`, `digits` or `none`."""
    known: dict[str, Augmentation] = {
        "paper": PaperTraining(short),
        "digits": DigitsTraining(short),
        "none": Resize(short),
    }
    return known[name]


def _resized(scene: Scene, clicks: Tensor, size: tuple[int, int]) -> Augmented:
    factors = torch.tensor([size[1] / scene.size[1], size[0] / scene.size[0]], dtype=torch.float64)
    return resized(scene, *size), (clicks.double() + 0.5) * factors - 0.5


def _moved(scene: Scene, scale: float, offset: Tensor) -> Scene:
    """The scene scaled about its middle and moved by `offset` (x, y), in halves of its sides."""
    if scene.masks is None:
        raise ValueError("a scene without masks cannot be moved")
    back = torch.tensor([[1 / scale, 0.0, 0.0], [0.0, 1 / scale, 0.0]])
    back[:, 2] = -offset / scale
    height, width = scene.size
    grid = F.affine_grid(back[None], [1, 3, height, width], align_corners=False)
    pixels = scene.image.as_subclass(Tensor).float()[None]
    image = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    shapes = scene.masks.as_subclass(Tensor).float()[None]
    masks = F.grid_sample(shapes, grid, mode="bilinear", align_corners=False)[0] > 0.5 if len(scene) else shapes[0] > 0
    boxes = tv_tensors.BoundingBoxes(tight_boxes(masks), format="XYXY", canvas_size=scene.size)
    moved = replace(scene.painted(image.round().to(torch.uint8)), masks=tv_tensors.Mask(masks), boxes=boxes)
    return moved.objects(masks.flatten(1).any(1))
