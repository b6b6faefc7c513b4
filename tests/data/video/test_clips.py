"""What is done about broken videos: in training another one takes their place, in a test none does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from tests.data.video.written_videos import moving, write_video
from vtk_cli.console import Console
from vtk_cli.data.video.clips import ClipSource, CountedBatches, Fault
from vtk_cli.data.video.decoding import BrokenVideo, VideoDecoder
from vtk_cli.data.video.records import Sampling, VideoFile
from vtk_cli.data.video.sampling import clips_for_test, train_clip
from vtk_cli.engine.batches import LoaderBatches
from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.samples import TestSet, TestViews

QUIET = Console(quiet=True)
SAMPLING = Sampling("stride", 2, 2)
GOOD, BROKEN = 9, (2, 5, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(GOOD):
        write_video(folder / f"{number}.mp4", moving(8, 16, 64, number))
    whole = bytearray((folder / "2.mp4").read_bytes())
    start = whole.index(b"mdat") + 4
    whole[start : whole.index(b"moov") - 4] = bytes(whole.index(b"moov") - 4 - start)
    (folder / "2.mp4").write_bytes(whole)  # opens, has its frames, and not one of them decodes
    (folder / "5.mp4").write_bytes(b"")
    (folder / "6.mp4").unlink()
    return folder


@pytest.fixture
def source(folder: Path) -> Iterator[ClipSource]:
    videos = [VideoFile(folder / f"{number}.mp4", number, f"line {number}") for number in range(GOOD)]
    source = ClipSource(videos, VideoDecoder("pyav"))
    yield source
    source.close()


class Clips(Dataset[Any]):
    """A clip of each video, what it is of, and the faults, as the training sees them."""

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, list[Fault]]:
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        (clip,), used, faults = self.source.clips_or_others(
            index, lambda length, fps: [train_clip(SAMPLING, length, fps, rng)], rng
        )
        return clip, used, faults


def collate(samples: list[tuple[torch.Tensor, int, list[Fault]]]) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    clips, used, faults = zip(*samples, strict=True)
    return torch.stack(clips), torch.tensor(used), list(faults)


def batches(source: ClipSource, workers: int) -> LoaderBatches:
    return LoaderBatches(Clips(source), 3, 0, workers, collate=collate)


def epochs(source: ClipSource, workers: int, tolerated: float = 1.0) -> tuple[list[Any], CountedBatches]:
    counted = CountedBatches(batches(source, workers), source, tolerated)
    seen = [batch for epoch in range(3) for batch in counted.epoch(epoch)]
    counted.close()
    return seen, counted


def test_the_same_videos_take_the_place_of_broken_ones_whatever_the_number_of_workers(source):
    """Three epochs: a worker that has met a broken video before draws what one draws that meets it now."""
    alone, counted = epochs(source, 0)
    assert counted.faults == {
        2: "video does not decode",
        5: "video is an empty file",
        6: "video is missing",
    }
    for workers in (1, 2):
        source._broken.clear()
        shared, again = epochs(source, workers)
        assert again.faults == counted.faults
        for one, other in zip(alone, shared, strict=True):
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_what_replaces_a_broken_video_is_a_good_one_and_good_ones_stay(source):
    for indices, _, used in epochs(source, 0)[0]:
        for index, got in zip(indices.tolist(), used.tolist(), strict=True):
            assert got not in BROKEN
            assert got == index or index in BROKEN


def test_a_sample_does_not_depend_on_what_was_decoded_before_it(source):
    def one(index: int) -> tuple[torch.Tensor, int]:
        rng = np.random.default_rng(42)
        clips, used, _ = source.clips_or_others(index, lambda n, fps: [train_clip(SAMPLING, n, fps, rng)], rng)
        return clips[0], used

    first = one(2)
    assert 2 in source._broken
    second = one(2)
    assert first[1] == second[1]
    assert torch.equal(first[0], second[0])


def test_videos_kept_in_memory_give_the_clips_that_decoding_gives(source):
    decoded, counted = epochs(source, 0)
    source.keep_all(QUIET)
    source.decoder.close()
    source.decoder = None  # type: ignore[assignment]  # nothing is decoded any more
    kept = ClipSource(source.videos, VideoDecoder("pyav"), source._kept)
    remembered, again = epochs(kept, 0)
    assert again.faults == counted.faults
    for one, other in zip(decoded, remembered, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    source.decoder = VideoDecoder("pyav")


def test_faults_are_counted_once_and_told_with_their_reason(source):
    _, counted = epochs(source, 0)
    told = counted.told()
    assert told.startswith("3 of 9 videos: ")
    for words in ("1 x video does not decode", "1 x video is an empty file", "1 x video is missing", "2.mp4; "):
        assert words in told


class Ready:
    """Batches of nothing but faults."""

    def __init__(self, faults: list[list[Fault]]) -> None:
        self._faults = faults
        self.steps_per_epoch = len(faults)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, ...]]:
        for faults in self._faults[start:]:
            yield torch.arange(1), [faults]


def counted_over(videos: int, broken: int) -> CountedBatches:
    files = [VideoFile(Path(f"{number}.mp4"), 0, "") for number in range(videos)]
    faults = [[Fault(number, "video does not decode")] for number in range(broken)]
    return CountedBatches(Ready(faults), ClipSource(files, VideoDecoder()))


@pytest.mark.parametrize(("videos", "most"), [(9, 0), (10, 1), (49, 4), (50, 5), (250, 5), (300, 6), (1000, 20)])
def test_more_than_two_percent_are_an_error_but_for_five_that_are_no_tenth(videos, most):
    assert len([*counted_over(videos, most).epoch(0)]) == most
    with pytest.raises(UserError, match=f"more than 2 % of the videos are broken: {most + 1} of {videos} videos"):
        list(counted_over(videos, most + 1).epoch(0))


def test_one_broken_video_that_is_met_again_and_again_is_one(tmp_path):
    files = [VideoFile(tmp_path / "a.mp4", 0, "")]
    source = ClipSource(files, VideoDecoder())
    counted = CountedBatches(Ready([[Fault(0, "video is missing")]] * 50), source, tolerated=1.0)
    assert len([*counted.epoch(0)]) == 50
    assert len(counted.faults) == 1


def test_where_every_video_is_broken_the_training_ends_with_the_reason(tmp_path):
    source = ClipSource([VideoFile(tmp_path / f"{number}.mp4", 0, "") for number in range(3)], VideoDecoder("pyav"))
    with pytest.raises(UserError, match="10 videos in a row cannot be decoded, the first because video is missing"):
        source.clips_or_others(0, lambda length, fps: [np.arange(1)], np.random.default_rng(0))
    with pytest.raises(UserError, match="no video can be decoded, the first because video is missing"):
        source.keep_all(QUIET)


def test_a_test_never_puts_another_video_in_the_place_of_a_broken_one(source):
    looks = TestViews(SAMPLING, 2, 3, 16, 16, "start", "clamp", 0.5, 0.5)
    dataset = TestSet(source, looks)
    for index in range(GOOD):
        seen = dataset[index]
        assert seen.index == index
        if index in BROKEN:
            assert (seen.fault != "", len(seen.views)) == (True, 0)
            with pytest.raises(BrokenVideo):
                source.clips(index, lambda length, fps: clips_for_test(SAMPLING, length, fps, 1))
        else:
            assert seen.fault == ""
            assert seen.views.shape == (6, 3, 2, 16, 16)
            np.testing.assert_allclose(seen.starts, np.repeat([0, 2 / 30], 3), atol=1e-9)
            np.testing.assert_allclose(seen.ends, np.repeat([3 / 30, 5 / 30], 3), atol=1e-9)


def test_a_worker_that_reads_many_videos_keeps_no_file_open(source):
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    choose = lambda length, fps: [np.arange(2)]  # noqa: E731
    source.clips(0, choose)
    before = count()
    for _ in range(5):
        for index in (0, 1, 3, 4, 7, 8):
            source.clips(index, choose)
    assert count() == before
    child = source.decoder._child
    assert child is not None
    opened = [entry.readlink() for entry in Path(f"/proc/{child._process.pid}/fd").iterdir()]
    assert sum(str(file).endswith(".mp4") for file in opened) <= 1
