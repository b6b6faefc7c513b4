"""Videos that mean harm, before what checks a data set, what looks at one, and what trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests.cases import held
from tests.hostile.attempts import MIB, SECONDS, Attempts
from vtk_cli.detect.checkpoint import save_detector
from vtk_cli.detect.configurations import Classes, detector_config
from vtk_cli.detect.network import build_detector

pytestmark = pytest.mark.slow

_BOUNDS = f"{SECONDS} s, {MIB} MiB"


def _clip(path: Path, side: int = 64, frames: int = 12) -> bytes:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def _stretched(good: bytes) -> bytes:
    """Its tables say that it has 2^31 samples."""
    at = good.index(b"stsz")
    return good[: at + 12] + b"\x7f\xff\xff\xff" + good[at + 16 :]


def _large(good: bytes) -> bytes:
    """Its track says 65,535 x 65,535 pixels."""
    at = good.index(b"avc1")
    return good[: at + 28] + b"\xff\xff\xff\xff" + good[at + 32 :]


_PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
_CONCAT = b"ffconcat version 1.0\nfile /etc/passwd\n"
_LARGE_TRACK = "65,535 x 65,535 in its track"
HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "an empty file": lambda _good: b"",
    "zeros": lambda _good: bytes(10**6),
    "half a video": lambda good: good[: len(good) // 2],
    "a header alone": lambda good: good[:48],
    "2^31 samples in its tables": _stretched,
    _LARGE_TRACK: _large,
    "a playlist of other files": lambda _good: _PLAYLIST,
    "a list of other files": lambda _good: _CONCAT,
    "noise in the middle": lambda good: good[:2000] + bytes(range(256)) * 8 + good[4048:],
}


@pytest.fixture(scope="module")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attempts]:
    folder = tmp_path_factory.mktemp("videos")
    good = _clip(folder / "good.mp4")
    for name in ("a", "b"):
        for number in range(3):
            place = folder / "data/train" / name
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.mp4").write_bytes(good)
    for number, made in enumerate(HOSTILE.values()):
        (folder / f"{number}.mp4").write_bytes(made(good))
        (folder / f"data/train/b/bad{number}.mp4").write_bytes(made(good))
    os.mkfifo(folder / "data/train/b/pipe.mp4")
    config = detector_config("vidt-micro", 1)
    save_detector(folder / "detector.safetensors", build_detector(config).state_dict(), config, Classes(("a",), (1,)))
    attempts = Attempts(folder, "vtk_cli.data.command", "vtk_cli.detect.use", "vtk_cli.video_pretrain.job")
    yield attempts
    attempts.close()


def test_the_check_of_a_folder_of_videos_names_every_one(attempt: Attempts) -> None:
    said = attempt("data", "check", "data")
    assert said.code == 2, said.err
    assert said.seconds < SECONDS
    assert said.mib < MIB
    assert "Traceback" not in said.err
    told = said.out + said.err
    assert all(f"bad{number}.mp4" in told for number in (0, 1, 3, 6, 7))
    assert "pipe.mp4" in told
    assert "root:" not in told
    seen = f"exit 2, named by vtk data check; < {_BOUNDS}"
    held("hostile", "videos: cut, empty, absurd tables, playlists, a pipe", seen)


@pytest.mark.parametrize(
    ("kind", "code"), [("2^31 samples in its tables", 2), ("a playlist of other files", 2), (_LARGE_TRACK, 0)]
)
def test_a_hostile_video_is_refused_or_read_as_what_it_is(attempt: Attempts, kind: str, code: int) -> None:
    """The stream knows its own size: what the track says of it is not believed."""
    name = f"{[*HOSTILE].index(kind)}.mp4"
    said = attempt("detect", "predict", name, "--model", "detector.safetensors", "--device", "cpu", "--out", "found")
    assert said.code == code, said.err
    assert said.within_bounds
    assert "Traceback" not in said.err
    assert "root:" not in said.out + said.err
    assert name in said.err + said.out
    outcome = "one line that names the file" if code else "read with the size that its stream has"
    held("hostile", f"videos: {kind}", f"exit {code}, {outcome}; < {SECONDS} s, < {MIB} MiB")
