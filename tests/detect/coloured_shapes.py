"""What the tests of the commands share: a COCO folder of coloured rectangles, and short trainings on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 64


FAST = ["--size", str(SIZE), "--epochs", "2", "--warmup-steps", "1", "--batch-size", "4", "--seed", "3"]


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230)}


def draw(file: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    """An image with two rectangles, and their annotations without ids."""
    pixels = rng.integers(0, 60, (60, 72, 3), dtype=np.uint8)
    found = []
    for half in (0, 36):
        label = int(rng.integers(3))
        left, top = half + int(rng.integers(2, 8)), int(rng.integers(2, 20))
        width, height = (int(value) for value in rng.integers(12, 26, 2))
        pixels[top : top + height, left : left + width] = [*COLOURS.values()][label]
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        found.append({"category_id": 10 * (label + 1), "bbox": [left, top, width, height], "segmentation": [corners]})
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return found


def write(root: Path, split: str, images: list[list[dict[str, Any]]]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "images": [{"id": 1 + n, "file_name": f"{n}.png", "width": 72, "height": 60} for n in range(len(images))],
        "annotations": [],
        "categories": [{"id": 10 * (n + 1), "name": name} for n, name in enumerate(COLOURS)],
    }
    for number, objects in enumerate(images):
        for one in objects:
            area = one["bbox"][2] * one["bbox"][3]
            entry = {"id": len(content["annotations"]) + 1, "image_id": number + 1, "area": area, "iscrowd": 0}
            content["annotations"].append({**entry, **one})
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return content


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def train_arguments(data: Path, *more: object) -> list[object]:
    return ["train", data, "--recipe", "digits", "--model", "vidt-micro", "--workers", "0", *FAST, *more]
