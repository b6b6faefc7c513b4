"""Decoding in the workers of a training: it goes on where it was interrupted, ends in time, and leaves no process."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from tests.data.video.written_videos import moving, opened_unless_named, write_video
from vtk_cli.data.video.child import MARGIN_S
from vtk_cli.data.video.clips import ClipSource, CountedBatches
from vtk_cli.data.video.decoding import VideoDecoder
from vtk_cli.data.video.records import Sampling, VideoFile
from vtk_cli.data.video.sampling import train_clip
from vtk_cli.engine.batches import LoaderBatches

SAMPLING = Sampling("stride", 2, 2)
TIMEOUT_S = 2.0

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are watched by Linux's pidfd_open")


class Clips(Dataset[Any]):
    """A clip of each video and its faults."""

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        (clip,), _, faults = self.source.clips_or_others(
            index, lambda length, fps: [train_clip(SAMPLING, length, fps, rng)], rng
        )
        return clip, faults


def collate(samples: list[Any]) -> tuple[torch.Tensor, list[Any]]:
    return torch.stack([clip for clip, _ in samples]), [faults for _, faults in samples]


def source_of(folder: Path, names: list[str], backend: str = "auto") -> ClipSource:
    videos = []
    for number, name in enumerate(names):
        path = write_video(folder / f"{name}.mp4", moving(8, 16, 64, number))
        videos.append(VideoFile(path, number, str(path)))
    return ClipSource(videos, VideoDecoder(backend, TIMEOUT_S, opened_unless_named))  # type: ignore[arg-type]


def children_of(process: int) -> set[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return {int(number) for task in tasks for number in (task / "children").read_text().split()}


def has_ended(process: int, within_s: float) -> bool:
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], within_s)[0])
    finally:
        os.close(watched)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_from_any_batch_with_the_clips_it_would_have_had(tmp_path, workers):
    source = source_of(tmp_path, list("abcdefg"), "pyav")
    source.videos[3].path.write_bytes(b"")

    def clips(epoch: int, start: int) -> list[torch.Tensor]:
        source._broken.clear()  # a new process knows of no broken video
        counted = CountedBatches(LoaderBatches(Clips(source), 2, 0, workers, collate=collate), source, tolerated=1.0)
        seen = [batch for _, batch in counted.epoch(epoch, start)]
        counted.close()
        return seen

    whole = clips(1, 0)
    assert len(whole) == 3
    assert any(not torch.equal(one, other) for one, other in zip(whole, clips(2, 0), strict=True))
    for start in (1, 2):
        torch.testing.assert_close(clips(1, start), whole[start:], rtol=0, atol=0)


@pytest.mark.slow
def test_files_that_hang_or_abort_their_decoder_hold_up_no_worker_and_leave_no_process(tmp_path):
    names = ["a", "hangs", "b", "aborts", "c", "decord-hangs", "d", "decord-aborts"]
    source = source_of(tmp_path, names)
    counted = CountedBatches(LoaderBatches(Clips(source), 2, 0, 2, collate=collate), source, tolerated=1.0)
    before, start = children_of(os.getpid()), time.monotonic()
    started: set[int] = set()
    for epoch in range(2):
        for _ in counted.epoch(epoch):
            workers = children_of(os.getpid()) - before
            started |= workers.union(*(children_of(worker) for worker in workers))
    took = time.monotonic() - start
    counted.close()
    assert {source.videos[index].path.stem: reason for index, reason in counted.faults.items()} == {
        "hangs": "video decoder does not return",
        "aborts": "video aborts the decoder",
    }
    # Each worker waits at most once for each decoder of `hangs`, and once for decord on `decord-hangs`.
    assert took < (2 + 1) * TIMEOUT_S + 20
    assert len(started) >= 4  # two workers, each with a decoder
    assert all(has_ended(process, 10) for process in started)


def test_a_decoder_that_hung_on_a_file_is_not_given_it_again(tmp_path):
    pytest.importorskip("decord")
    source = source_of(tmp_path, ["decord-hangs"])
    start = time.monotonic()
    source.clips(0, lambda length, fps: [np.arange(2)])
    first = time.monotonic() - start
    source.clips(0, lambda length, fps: [np.arange(2)])
    assert first > TIMEOUT_S > time.monotonic() - start - first
    source.close()


def decode_and_wait(decoder: VideoDecoder, video: VideoFile, told: Any) -> None:
    decoder.clips(video, lambda length, fps: [np.arange(length)])
    told.send(decoder.process)
    told.recv()
    decoder.clips(VideoFile(video.path.with_name("hangs.mp4"), 0, ""), lambda length, fps: [np.arange(length)])


@pytest.mark.parametrize("hanging", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_decoder_ends_after_the_process_that_used_it_was_killed(tmp_path, hanging):
    source = source_of(tmp_path, ["a", "hangs"], "pyav")
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=decode_and_wait, args=(source.decoder, source.videos[0], theirs), daemon=True)
    worker.start()
    theirs.close()
    decoder = ours.recv()
    if hanging:
        ours.send("go on")
        assert not has_ended(decoder, 0.5)  # it is at work on a file that hangs
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert has_ended(decoder, TIMEOUT_S + MARGIN_S + 10 if hanging else 5)
