"""A cache of its own for every test, and small images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtk_cli.files import CACHE_VARIABLE


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="session")
def paint() -> Callable[[Path], None]:
    """Writes a noise image of 40x30; no two files have the same bytes."""

    def painted(file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(sum(map(ord, str(file)))).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)

    return painted
