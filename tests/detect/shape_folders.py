"""Images with two coloured rectangles each, as the folders of boxes that people have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 72, 60
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230)}
Object = tuple[int, int, int, int, int]
"""Label, left, top, width, height."""


def write_coco(root: Path, counts: dict[str, int]) -> Path:
    """`train2017/`, `val2017/` and `annotations/`; `counts` are the images of each split."""
    for split, images in _drawn(counts).items():
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        names = _save(root / f"{split}2017", images)
        content = _coco(names, images, [{"id": 10 * (n + 1), "name": name} for n, name in enumerate(COLOURS)], 10)
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return root


def write_roboflow(root: Path, counts: dict[str, int]) -> Path:
    """`train/` and `valid/` with `_annotations.coco.json` among the images, and a category that groups the others."""
    for split, images in _drawn(counts).items():
        folder = root / {"val": "valid"}.get(split, split)
        names = _save(folder, images)
        groups = [{"id": 0, "name": "shapes", "supercategory": "none"}]
        groups += [{"id": n + 1, "name": name, "supercategory": "shapes"} for n, name in enumerate(COLOURS)]
        (folder / "_annotations.coco.json").write_text(json.dumps(_coco(names, images, groups, 1)))
    return root


def write_yolo(root: Path, counts: dict[str, int]) -> Path:
    """`data.yaml`, `images/` and `labels/`."""
    for split, images in _drawn(counts).items():
        (root / "labels" / split).mkdir(parents=True)
        for name, (_, objects) in zip(_save(root / "images" / split, images), images, strict=True):
            lines = [
                f"{label} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n"
                for label, x, y, w, h in objects
            ]
            (root / "labels" / split / name).with_suffix(".txt").write_text("".join(lines))
    names = f"names: [{', '.join(COLOURS)}]"
    (root / "data.yaml").write_text("\n".join(["path: .", *(f"{split}: images/{split}" for split in counts), names]))
    return root


def write_voc(root: Path, counts: dict[str, int]) -> Path:
    """`Annotations/`, `JPEGImages/` and `ImageSets/Main/`."""
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets/Main").mkdir(parents=True)
    classes = [*COLOURS]
    for split, images in _drawn(counts).items():
        names = _save(root / "JPEGImages", images, split)
        for name, (_, objects) in zip(names, images, strict=True):
            boxes = "".join(
                f"<object><name>{classes[label]}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
                f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                for label, x, y, w, h in objects
            )
            size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
            text = f"<annotation><filename>{name}</filename>{size}{boxes}</annotation>"
            (root / "Annotations" / name).with_suffix(".xml").write_text(text)
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(Path(name).stem for name in names))
    return root


WRITERS: dict[str, Callable[[Path, dict[str, int]], Path]] = {
    "coco": write_coco,
    "roboflow": write_roboflow,
    "yolo": write_yolo,
    "voc": write_voc,
}


def _drawn(counts: dict[str, int]) -> dict[str, list[tuple[Image.Image, list[Object]]]]:
    rng = np.random.default_rng(0)
    return {split: [_draw(rng) for _ in range(count)] for split, count in counts.items()}


def _draw(rng: np.random.Generator) -> tuple[Image.Image, list[Object]]:
    pixels = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    objects = []
    for half in (0, WIDTH // 2):
        label, left, top = (int(rng.integers(low, high)) for low, high in ((0, 3), (half + 2, half + 8), (2, 20)))
        width, height = (int(side) for side in rng.integers(12, 26, 2))
        pixels[top : top + height, left : left + width] = [*COLOURS.values()][label]
        objects.append((label, left, top, width, height))
    return Image.fromarray(pixels), objects


def _save(folder: Path, images: list[tuple[Image.Image, list[Object]]], prefix: str = "") -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{prefix}{number}.png" for number in range(len(images))]
    for name, (image, _) in zip(names, images, strict=True):
        image.save(folder / name)
    return names


def _coco(
    names: list[str], images: list[tuple[Image.Image, list[Object]]], categories: list[dict[str, Any]], step: int
) -> dict[str, Any]:
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    for number, (name, (_, objects)) in enumerate(zip(names, images, strict=True), start=1):
        content["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for label, x, y, w, h in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": step * (label + 1),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    return content
