"""The embedded `digits-coco`: scenes of one to five digits on photo crops, with boxes, masks and one point a digit.

128x128 PNG and COCO instance JSON: `train/ val/ annotations/instances_{train,val}.json`. Digits vary in size, colour
and place and may overlap: the later one is in front, and an occluded one keeps its visible part, never less than half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from vtk_cli.data.digits import SPLITS, Glyphs, Split, load_glyphs
from vtk_cli.data.painting import Bytes, Floats, contrasting_colour, draw_glyph, load_photos, paint, photo_crop
from vtk_cli.files import write_json

SIDE = 128
MOST_DIGITS = 5
SMALLEST_DIGIT, LARGEST_DIGIT = 22, 56
SMALLEST_CROP, LARGEST_CROP = 128, 320
LEAST_VISIBLE = 0.5
ATTEMPTS = 50
"""How often a digit that hides too much of another is redrawn before the scene goes without it."""
STREAM = 1
"""Sets this dataset's random numbers apart from those of the other embedded datasets."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Instance:
    """A digit in a scene: its class 0..9, which of the 1,797 digits it is, and its visible mask, bool (128, 128)."""

    label: int
    digit_id: int
    visible: Mask


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, uint8 (128, 128, 3), and its instances, back to front."""

    image: Bytes
    instances: tuple[Instance, ...]


def build_digits_coco(folder: Path, *, train: int, val: int) -> None:
    """Write `digits-coco` with `train` and `val` scenes into the empty `folder`; fewer scenes are the first of more."""
    for split, count in zip(SPLITS, (train, val), strict=True):
        (folder / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, scene in enumerate(draw_scenes(split, count), 1):
            name = f"{index:06d}.png"
            Image.fromarray(scene.image).save(folder / split / name)
            images.append({"id": index, "file_name": name, "width": SIDE, "height": SIDE})
            for instance in scene.instances:
                annotations.append({"id": len(annotations) + 1, "image_id": index, **annotation(instance)})
        categories = [{"id": digit + 1, "name": str(digit), "supercategory": "digit"} for digit in range(10)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(folder / "annotations" / f"instances_{split}.json", content)


def draw_scenes(split: Split, count: int) -> Iterator[Scene]:
    """The first `count` scenes of a split; scene i depends on the split and on i alone."""
    photos, glyphs = load_photos(), load_glyphs(split)
    for index in range(count):
        rng = np.random.default_rng([STREAM, SPLITS.index(split), index])
        photo = photos[int(rng.integers(2))]
        background = photo_crop(photo, SIDE, rng, smallest=SMALLEST_CROP, largest=LARGEST_CROP)
        yield _draw_scene(background.copy(), glyphs, rng)


def visible_masks(layers: Sequence[Mask]) -> list[Mask]:
    """What is seen of each of `layers`, bool (H, W), back to front: a later one hides what it covers."""
    visible: list[Mask] = []
    covered = np.zeros((SIDE, SIDE), bool)
    for layer in reversed(layers):
        visible.append(layer & ~covered)
        covered = covered | layer
    return visible[::-1]


def annotation(instance: Instance) -> dict[str, Any]:
    """The COCO fields of an instance: the box is tight to the visible mask, `point` lies on it, the mask is an RLE.

    `point` is the [x, y] of the visible pixel nearest to the mask's centroid; (0, 0) is the centre of the top left
    pixel. `digit_id` says which of the 1,797 digits it is.
    """
    y, x = np.nonzero(instance.visible)
    nearest = int(np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2))
    rle = coco_mask.encode(np.asfortranarray(instance.visible, np.uint8))
    return {
        "category_id": instance.label + 1,
        "bbox": [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1],
        "area": len(x),
        "iscrowd": 0,
        "segmentation": {"size": [SIDE, SIDE], "counts": rle["counts"].decode()},
        "point": [float(x[nearest]), float(y[nearest])],
        "digit_id": instance.digit_id,
    }


def _draw_scene(image: Bytes, glyphs: Glyphs, rng: np.random.Generator) -> Scene:
    chosen: list[int] = []
    layers: list[Mask] = []
    for _ in range(int(rng.integers(1, MOST_DIGITS + 1))):
        which = int(rng.integers(len(glyphs.ids)))
        layer = _add_digit(image, layers, glyphs.ink[which], rng)
        if layer is not None:
            chosen.append(which)
            layers.append(layer)
    instances = [
        Instance(int(glyphs.labels[which]), int(glyphs.ids[which]), visible)
        for which, visible in zip(chosen, visible_masks(layers), strict=True)
    ]
    return Scene(image, tuple(instances))


def _add_digit(image: Bytes, layers: Sequence[Mask], ink: Floats, rng: np.random.Generator) -> Mask | None:
    """Paint a digit in front of `layers` and return its mask; None when it hides too much wherever it was tried."""
    for _ in range(ATTEMPTS):
        glyph = draw_glyph(ink, int(rng.integers(SMALLEST_DIGIT, LARGEST_DIGIT + 1)))
        height, width = glyph.opacity.shape
        x, y = int(rng.integers(SIDE - width + 1)), int(rng.integers(SIDE - height + 1))
        layer = np.zeros((SIDE, SIDE), bool)
        layer[y : y + height, x : x + width] = glyph.mask
        seen = visible_masks([*layers, layer])
        if all(part.sum() >= LEAST_VISIBLE * whole.sum() for part, whole in zip(seen, layers, strict=False)):
            paint(image, glyph, contrasting_colour(image[y : y + height, x : x + width], rng), x, y)
            return layer
    return None
