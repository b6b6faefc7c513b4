"""`vtk train` as a user runs it, in this process, on small images of his own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import Said
from vtk_cli.app import main

CLASSES = ("ant", "bee")


Vtk = Callable[..., Said]


def write_images(root: Path, *, classes: tuple[str, ...] = CLASSES, count: int = 6, splits: tuple[str, ...]) -> Path:
    """Noisy images of 24 x 24 pixels, reddish, bluish ... by class: `root/SPLIT/CLASS/CLASS0.png`."""
    generator = np.random.default_rng(0)
    for split in splits:
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.normal(110, 40, (24, 24, 3))
                pixels[..., label % 3] += 60
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{name}{index}.png")
    return root


@pytest.fixture(scope="session")
def shared_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train/` and `val/` of two classes with six images each; not to be changed."""
    return write_images(tmp_path_factory.mktemp("shared") / "pictures", splits=("train", "val"))


@pytest.fixture(scope="session")
def train_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def vtk(tmp_path: Path, train_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vtk:
    """Runs `vtk train ARGUMENTS` in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(train_cache))

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = main(["train", *map(str, arguments)])
        return Said(code, *capsys.readouterr())

    return run


def tree(folder: Path) -> set[Path]:
    """Everything in a folder."""
    return set(folder.rglob("*"))
