"""A cache of its own for every test, images, and annotation files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtk_cli.files import CACHE_VARIABLE

WIDTH, HEIGHT = 40, 30
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three images of 40x30: a.png, b.png and c.png."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate("abc"):
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a COCO file of the three images, with the annotations given; ids and what a click needs are filled in."""

    def write(annotations: Sequence[Any], name: str = "weak.json", categories: Sequence[Any] = CATEGORIES) -> Path:
        images = [
            {"id": number, "file_name": f"{letter}.png", "width": WIDTH, "height": HEIGHT}
            for number, letter in ((10, "a"), (11, "b"), (12, "c"))
        ]
        whole = [
            {"id": number, "image_id": 10, "category_id": 3, "iscrowd": 0, **entry}
            for number, entry in enumerate(annotations, 1)
        ]
        content = {"images": images, "annotations": whole, "categories": list(categories)}
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write
