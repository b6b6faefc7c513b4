"""From a scene of any size to one the network takes: the augmentation of training, and the resize of evaluation.

Paper: DETR's multi-scale augmentation as ViDT trains with (arXiv 2110.03921, Appendix), both sides floored to multiples
of 16. Modern: one square size, colour jitter, zoom, and `mosaic`.

Everything random is drawn from torch's global generator, which training seeds for each sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torchvision.transforms import v2

from vtk_cli.data.detection.scenes import Scene, cropped, flipped, padded, resized

MULTIPLE = 16
"""Both sides of a resized image are multiples of it (but for images resized to a square)."""
GREY = (114, 114, 114)
"""What a scene is padded with where the padding counts as part of the image."""
_PAPER_SHORT = 800


def resized_size(height: int, width: int, short: int, longest: int | None = None) -> tuple[int, int]:
    """Height and width after a resize that keeps the shape of an image but for the flooring to multiples of 16.

    Args:
        height, width: of the image.
        short: what the shorter side becomes.
        longest: what the longer side may not exceed; then the shorter one becomes less than `short`.
    """
    least, most = min(height, width), max(height, width)
    if longest is not None and most / least * short > longest:
        short = round(longest * least / most)
    scaled = (int(short * height / least), int(short * width / least))
    return tuple(max(MULTIPLE, side // MULTIPLE * MULTIPLE) for side in scaled)  # type: ignore[return-value]  # two


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side becomes `side`, its shape kept to the pixel."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


@dataclass(frozen=True)
class PaperTraining:
    """Flip by half; then, by half, a resize, or a resize, a random crop and a resize.

    Args:
        sides: what the shorter side may become in the last resize.
        longest: what the longer side may not exceed then.
        crop_sides: what the shorter side may become before a crop.
        crop: least and most of each side of the crop, in pixels.
    """

    sides: tuple[int, ...] = tuple(range(480, _PAPER_SHORT + 1, 32))
    longest: int = 1333
    crop_sides: tuple[int, ...] = (400, 500, 600)
    crop: tuple[int, int] = (384, 600)

    @classmethod
    def scaled(cls, short: int) -> PaperTraining:
        """The paper's augmentation for images whose shorter side is `short` in evaluation (the paper's: 800)."""
        paper, factor = cls(), short / _PAPER_SHORT

        def steps(sides: tuple[int, ...]) -> tuple[int, ...]:
            near = (max(MULTIPLE, round(side * factor / MULTIPLE) * MULTIPLE) for side in sides)
            return tuple(dict.fromkeys(near))

        crop = (max(1, round(paper.crop[0] * factor)), max(1, round(paper.crop[1] * factor)))
        whole = short == _PAPER_SHORT
        crop_sides = paper.crop_sides if whole else steps(paper.crop_sides)
        return cls(steps(paper.sides), round(paper.longest * factor), crop_sides, crop)

    def __call__(self, scene: Scene) -> Scene:
        """An augmented scene."""
        if _by_chance(0.5):
            scene = flipped(scene)
        if _by_chance(0.5):
            scene = self._random_crop(resized(scene, *resized_size(*scene.size, _one_of(self.crop_sides))))
        return resized(scene, *resized_size(*scene.size, _one_of(self.sides), self.longest))

    def _random_crop(self, scene: Scene) -> Scene:
        least, most = self.crop
        (height, width) = (_between(min(least, side), min(side, most)) for side in scene.size)
        top, left = (_between(0, side - part) for side, part in zip(scene.size, (height, width), strict=True))
        return cropped(scene, top, left, height, width)


@dataclass(frozen=True)
class ShortSide:
    """Evaluation as in the paper: the shorter side 800 pixels, the longer at most 1333, multiples of 16."""

    short: int = _PAPER_SHORT
    longest: int = 1333

    @classmethod
    def scaled(cls, short: int) -> ShortSide:
        """The same proportions around another shorter side."""
        return cls(short, round(cls.longest * short / _PAPER_SHORT))

    def __call__(self, scene: Scene) -> Scene:
        """A resized scene."""
        return resized(scene, *resized_size(*scene.size, self.short, self.longest))


@dataclass(frozen=True)
class Stretch:
    """Evaluation at one size: a square of `side` pixels, the shape of the image not kept."""

    side: int

    def __call__(self, scene: Scene) -> Scene:
        """A resized scene."""
        return resized(scene, self.side, self.side)


@dataclass(frozen=True)
class Letterbox:
    """Evaluation at one size: the longer side becomes `side`; `samples.Collate` pads the other and masks that."""

    side: int

    def __call__(self, scene: Scene) -> Scene:
        """A resized scene."""
        return resized(scene, *fitted_size(*scene.size, self.side))


@dataclass(frozen=True)
class ModernTraining:
    """Colour jitter, flip, and by half a zoom: in, to a part of the image, or out, on a grey canvas; then `resize`.

    Args:
        resize: brings every scene to the one size, as evaluation does.
        zoom: the largest factor, in either direction.
        least_visible: the share of its box that must be seen of an object in a part.
    """

    resize: Stretch | Letterbox
    zoom: float = 2.0
    least_visible: float = 0.2

    @cached_property
    def _jitter(self) -> v2.Transform:
        return v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.5, hue=0.03)

    def __call__(self, scene: Scene) -> Scene:
        """An augmented scene."""
        if _by_chance(0.8):
            scene = scene.painted(self._jitter(scene.image))
        if _by_chance(0.5):
            scene = flipped(scene)
        if _by_chance(0.5):
            scene = self._zoomed(scene)
        return self.resize(scene)

    def _zoomed(self, scene: Scene) -> Scene:
        height, width = scene.size
        factor = 1 + (self.zoom - 1) * float(torch.rand(()))
        if _by_chance(0.5):
            part = (max(1, round(height / factor)), max(1, round(width / factor)))
            top, left = _between(0, height - part[0]), _between(0, width - part[1])
            return cropped(scene, top, left, *part, least_visible=self.least_visible)
        canvas = (round(height * factor), round(width * factor))
        top, left = _between(0, canvas[0] - height), _between(0, canvas[1] - width)
        return padded(scene, (left, top, canvas[1] - width - left, canvas[0] - height - top), GREY)


def _by_chance(probability: float) -> bool:
    return float(torch.rand(())) < probability


def _between(least: int, most: int) -> int:
    """A whole number from `least` to `most`, both possible."""
    return int(torch.randint(least, most + 1, ()))


def _one_of(values: tuple[int, ...]) -> int:
    return values[_between(0, len(values) - 1)]
