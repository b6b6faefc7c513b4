"""Clips of moving digits on disk, and what was trained on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.video_pretrain.tiny_runs import SSL, SUPERVISED, Call
from vtk_cli.app import main
from vtk_cli.data.moving_digits import build_moving_digits
from vtk_cli.files import CACHE_VARIABLE


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training clips and 8 test clips on disk."""
    folder = tmp_path_factory.mktemp("clips")
    build_moving_digits(folder, train=24, val=8, val_iid=8)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `vtk video-pretrain ARGUMENTS` in an empty folder; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["video-pretrain", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return call


@pytest.fixture(scope="session")
def finished(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-supervised run."""
    out = tmp_path_factory.mktemp("runs") / "ssl"
    assert main(["video-pretrain", "run", str(clips), *SSL, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="session")
def classified(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supervised run with the temporal losses."""
    out = tmp_path_factory.mktemp("runs") / "supervised"
    assert main(["video-pretrain", "run", str(clips), *SUPERVISED, "--out", str(out), "--quiet"]) == 0
    return out
