"""What the bench of videos measures, on a small scale; and that a worker's memory stays what it is."""

from __future__ import annotations

import os
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from torch import Tensor

from vtk_cli.data.video import measuring
from vtk_cli.data.video.child import Child
from vtk_cli.data.video.clips import ClipSource
from vtk_cli.data.video.decoding import Choose
from vtk_cli.data.video.measuring import (
    CLIP_BYTES,
    SIZE,
    Memory,
    clips_per_second,
    clips_per_second_unprotected,
    memory_over,
    write_clips,
)
from vtk_cli.data.video.reading import open_reader
from vtk_cli.data.video.records import VideoFile
from vtk_cli.errors import JobError

ON_LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoFile]:
    return write_clips(tmp_path_factory.mktemp("videos"), 2, frames=70)


def test_the_videos_are_h264_of_320_by_240_in_which_something_moves(videos):
    reader = open_reader(videos[0].path, "pyav")
    first, last = reader.get_batch([0, 69]).astype(int)
    assert (len(reader), first.shape) == (70, (*SIZE, 3))
    assert abs(first - last).mean() > 10


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_both_decoders_have_a_rate_protected_or_not(videos, backend):
    if backend == "decord":
        pytest.importorskip("decord")
    assert 1 < clips_per_second(videos, backend, 4) < 10_000
    assert 1 < clips_per_second_unprotected(videos, backend, 4) < 10_000


def test_growth_is_what_the_peak_has_risen_by_since_a_tenth_of_the_clips():
    assert Memory((50, 100, 150, 1000), (10, 20, 21, 33)).growth == 13


@ON_LINUX
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_the_memory_of_a_worker_is_flat(videos, backend):
    found = memory_over(videos, backend, 100)
    assert found is not None
    assert found.clips == (50, 100)
    assert found.peaks[0] > 50e6  # two processes with their libraries
    assert found.growth < 10 * CLIP_BYTES


def keep_everything(videos: list[VideoFile], connection: Connection) -> None:
    """A worker that lets go of no clip."""
    held: list[list[Tensor]] = []
    read = ClipSource.clips

    def clips(source: ClipSource, index: int, choose: Choose) -> list[Tensor]:
        held.append(read(source, index, choose))
        return held[-1]

    ClipSource.clips = clips  # type: ignore[method-assign]
    measuring._read_many(videos, "pyav", 100, connection)


@ON_LINUX
@pytest.mark.slow
def test_a_worker_that_keeps_what_it_reads_is_seen_to_grow(videos):
    with Child(partial(keep_everything, videos)) as worker:
        looks = [worker.receive(60) for _ in range(2)]
    assert Memory(*zip(*looks, strict=True)).growth > 0.8 * 50 * CLIP_BYTES


def test_a_worker_that_dies_is_an_error(videos, tmp_path):
    missing = VideoFile(tmp_path / "gone.mp4", None, "x")
    with pytest.raises(JobError, match="after 0 clips"):
        memory_over([missing], "pyav", 10)


@ON_LINUX
def test_the_processes_of_the_measurement_are_gone_after_it(videos):
    before = children()
    clips_per_second(videos, "pyav", 1)
    assert children() <= before


def children() -> set[str]:
    """The numbers of the processes that this one has started and not ended."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
