"""`vtk prune` as a user runs it, in this process, on the smallest generators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import Said
from vtk_cli.app import main

TINY = ("--ngf", "8", "--nz", "8", "--steps", "6", "--every", "3", "--batch", "8", "--samples", "24")


Prune = Callable[..., Said]


@pytest.fixture(scope="session")
def prune_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the two small networks of digits are trained once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def prune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prune_cache: Path
) -> Prune:
    """Runs `vtk prune ARGUMENTS` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(prune_cache))

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = main(["prune", *map(str, arguments)])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def write_noise(folder: Path, count: int, side: int = 20) -> Path:
    """So many noisy images."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder
