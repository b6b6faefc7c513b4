"""`vtk prune` as a user runs it, in this process, on the smallest generators."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtk_cli.app import main

TINY = ("--ngf", "8", "--nz", "8", "--steps", "6", "--every", "3", "--batch", "8", "--samples", "24")


@dataclass(frozen=True)
class Said:
    """What a command left behind: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> dict[str, Any]:
        """The one object that `--json` prints."""
        assert self.code == 0, self.err
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def complaint(self) -> str:
        """The one line of an error; that nothing else went wrong is asserted."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert not self.out
        assert self.code == 2
        return lines[0]


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
