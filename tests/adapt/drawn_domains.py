"""Folders of tiny images, each of its own colour."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def draw_images(root: Path, names: Iterable[str]) -> Path:
    """Write 8x6 PNG files at `root/<name>`, one colour each."""
    for name in names:
        hue = int(hashlib.sha256(f"{root.name}/{name}".encode()).hexdigest()[:6], 16) / 0xFFFFFF
        colour = tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8, 0.9))
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), colour).save(path, "PNG")
    return root


def class_tree(root: Path, classes: Iterable[str], each: int = 3) -> Path:
    """A tree of class folders with `each` images in each."""
    return draw_images(root, [f"{name}/{number}.png" for name in classes for number in range(each)])
