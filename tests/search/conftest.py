"""The fixtures of the spaces' own tests, and `vtk` in a folder and with a cache of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.spaces.conftest import rng, space
from tests.search.command_line import TRAINING, Said, Vtk
from vtk_cli.app import main

__all__ = ["rng", "space"]


@pytest.fixture
def vtk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vtk:
    """Run `vtk search` with arguments, in a folder of the test's own and without its user's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: object, command: str = "search") -> Said:
        capsys.readouterr()
        code = main([command, *map(str, words)])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `vtk search supernet`; tests read it only."""
    folder = tmp_path_factory.mktemp("supernet") / "trained"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VTK_CACHE", str(folder.parent / "cache"))
        assert main(["search", "supernet", *TRAINING, "--quiet", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, 12 to train on and 6 to measure, of two classes: grey or coloured, wide or high."""
    root, generator = tmp_path_factory.mktemp("pictures") / "data", np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                size = (20 + 6 * (number % 3), 32 - 5 * (number % 2))
                pixels = generator.normal(90 + 60 * label, 40, (*size, 3)).clip(0, 255).astype(np.uint8)
                image = Image.fromarray(pixels).convert("L" if number % 2 else "RGB")
                image.save(root / split / name / f"{number}.png")
    return root
