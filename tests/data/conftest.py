from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vtk_cli.data.embedded import open_embedded
from vtk_cli.files import CACHE_VARIABLE

COCO_COUNTS = {"train": 40, "val": 20}
CLIP_COUNTS = {"train": 48, "val": 16, "val_iid": 40}


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that the tests of this folder share and leave whole."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(cache))
        yield cache


@pytest.fixture(scope="session")
def coco_folder(shared_cache: Path) -> Path:
    return open_embedded("digits-coco", **COCO_COUNTS).folder


@pytest.fixture(scope="session")
def clips_folder(shared_cache: Path) -> Path:
    return open_embedded("moving-digits", **CLIP_COUNTS).folder
