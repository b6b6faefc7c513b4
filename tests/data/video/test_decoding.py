"""Clips from a process apart: whatever the files and the decoders do, one clear reason, and the next video is read."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.video.written_videos import moving, opened_unless_named, write_sound, write_video
from vtk_cli.data.video import reading
from vtk_cli.data.video.decoding import BrokenVideo, VideoDecoder
from vtk_cli.data.video.reader import ReadError
from vtk_cli.data.video.reading import check_backend, open_reader
from vtk_cli.data.video.records import VideoFile
from vtk_cli.errors import UserError

pytest.importorskip("decord")
FRAMES = moving(12, 32, 64)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "good.mp4", FRAMES)


@pytest.fixture
def harmful(monkeypatch: pytest.MonkeyPatch):
    """A decoder whose child knows the modules of the tests."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    decoder = VideoDecoder(timeout_s=1.5, opened=opened_unless_named)
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def decoder():
    decoder = VideoDecoder()
    yield decoder
    decoder.close()


def video(path: Path, **part: tuple[float, float] | tuple[int, int]) -> VideoFile:
    return VideoFile(path, None, str(path), **part)


def whole(length: int, fps: float) -> list[np.ndarray]:
    return [np.arange(length)]


def reason(decoder: VideoDecoder, path: Path) -> str:
    with pytest.raises(BrokenVideo) as caught:
        decoder.clips(video(path), whole)
    assert caught.value.path == path
    return caught.value.reason


def test_clips_are_the_frames_that_a_reader_in_this_process_gives(decoder, clip):
    asked = [np.array([3, 3, 0]), np.array([11]), np.array([0, 4, 8, 11])]
    heard = []

    def choose(length: int, fps: float) -> list[np.ndarray]:
        heard.append((length, fps))
        return asked

    expected = open_reader(clip, "pyav").get_batch(range(12))
    found = decoder.clips(video(clip), choose)
    assert heard == [(12, 30.0)]
    for one, indices in zip(found, asked, strict=True):
        np.testing.assert_array_equal(one, expected[indices])


def test_sizes_that_decord_cannot_copy_are_read_by_pyav(decoder, tmp_path):
    """decord 0.6 pads some rows, e.g. of 48 pixels, and then refuses its own frames."""
    path = write_video(tmp_path / "narrow.mp4", moving(5, 32, 48))
    assert decoder.clips(video(path), whole)[0].shape == (5, 32, 48, 3)


def test_a_part_of_a_video_is_counted_from_its_own_start(decoder, clip):
    expected = open_reader(clip, "pyav").get_batch(range(12))
    for part, frames in (
        ({"frames": (4, 9)}, slice(4, 9)),
        ({"frames": (10, 99)}, slice(10, 12)),
        ({"seconds": (0.1, 0.2)}, slice(3, 6)),
        ({"seconds": (0.3, float("inf"))}, slice(9, 12)),
    ):
        (found,) = decoder.clips(video(clip, **part), whole)
        np.testing.assert_array_equal(found, expected[frames])
    with pytest.raises(BrokenVideo, match="part begins after the end"):
        decoder.clips(video(clip, frames=(12, 14)), whole)


def test_every_wrong_file_has_its_reason_and_the_next_is_read(decoder, clip, tmp_path):
    content = clip.read_bytes()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("text")
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "folder.mp4").mkdir()
    write_sound(tmp_path / "sound.mp4")
    assert {name: reason(decoder, tmp_path / f"{name}.mp4") for name in ("gone", "empty", "text", "cut", "sound")} == {
        "gone": "video is missing",
        "empty": "video is an empty file",
        "text": "video does not decode",
        "cut": "video does not decode",
        "sound": "file has no video stream",
    }
    assert reason(decoder, tmp_path / "folder.mp4") == "folder holds no frames"
    assert len(decoder.clips(video(clip), whole)[0]) == 12


def test_damaged_payloads_never_reach_this_process(clip, tmp_path):
    content, rng = bytearray(clip.read_bytes()), np.random.default_rng(0)
    decoder, outcomes = VideoDecoder(timeout_s=5), []
    for number in range(12):
        harmed = bytearray(content)
        for place in rng.integers(48, len(harmed), 20):
            harmed[place] = int(rng.integers(256))
        (tmp_path / f"{number}.mp4").write_bytes(harmed)
        try:
            outcomes.append(len(decoder.clips(video(tmp_path / f"{number}.mp4"), whole)[0]))
        except BrokenVideo as error:
            outcomes.append(error.reason)
    assert len(decoder.clips(video(clip), whole)[0]) == 12
    decoder.close()
    assert any(isinstance(one, str) for one in outcomes)


def test_a_decoder_that_aborts_is_replaced(harmful, clip, tmp_path):
    write_video(tmp_path / "aborts.mp4", FRAMES)
    assert reason(harmful, tmp_path / "aborts.mp4") == "video aborts the decoder"
    assert len(harmful.clips(video(clip), whole)[0]) == 12


def test_a_decoder_that_hangs_is_ended_in_time(harmful, clip, tmp_path):
    write_video(tmp_path / "hangs.mp4", FRAMES)
    harmful.clips(video(clip), whole)
    start = time.monotonic()
    assert reason(harmful, tmp_path / "hangs.mp4") == "video decoder does not return"
    assert 2.9 < time.monotonic() - start < 8  # decord's time and PyAV's
    assert len(harmful.clips(video(clip), whole)[0]) == 12


@pytest.mark.parametrize("name", ["decord-aborts", "decord-hangs"])
def test_where_decord_aborts_or_hangs_pyav_reads_the_video(name, harmful, tmp_path):
    write_video(tmp_path / f"{name}.mp4", FRAMES)
    assert len(harmful.clips(video(tmp_path / f"{name}.mp4"), whole)[0]) == 12


def test_an_error_nobody_thought_of_is_a_broken_video(harmful, clip, tmp_path):
    for name, said in (("surprises", "video aborts the decoder"), ("memory", "video does not fit into memory")):
        write_video(tmp_path / f"{name}.mp4", FRAMES)
        assert reason(harmful, tmp_path / f"{name}.mp4") == said
    assert len(harmful.clips(video(clip), whole)[0]) == 12


def test_a_video_too_short_for_its_clip_has_that_reason(decoder, clip):
    def choose(length: int, fps: float) -> list[np.ndarray]:
        raise ReadError("video has fewer frames than a clip")

    with pytest.raises(BrokenVideo, match="fewer frames than a clip"):
        decoder.clips(video(clip), choose)


def test_a_copy_of_a_decoder_has_a_child_of_its_own(decoder, clip):
    decoder.clips(video(clip), whole)
    copy = pickle.loads(pickle.dumps(decoder))  # noqa: S301
    assert copy._child is None
    assert len(copy.clips(video(clip), whole)[0]) == 12
    copy.close()
    assert len(decoder.clips(video(clip), whole)[0]) == 12


def test_a_fork_leaves_its_parents_child_alone(decoder, clip):
    decoder.clips(video(clip), whole)
    fork = os.fork()
    if not fork:
        code = 1
        try:
            code = 0 if len(decoder.clips(video(clip), whole)[0]) == 12 else 1
            decoder.close()
        finally:
            os._exit(code)
    assert os.waitpid(fork, 0)[1] == 0
    assert len(decoder.clips(video(clip), whole)[0]) == 12


def test_closing_ends_the_process(clip):
    decoder = VideoDecoder()
    decoder.clips(video(clip), whole)
    child = decoder._child
    assert child is not None
    decoder.close()
    assert child._process.poll() is not None


def test_without_decord_pyav_reads_everything(monkeypatch, clip):
    monkeypatch.setattr(reading, "decord", None)
    assert reading.backends_for(clip, "auto") == ("pyav",)
    assert reading.backends_for(clip, "pyav") == ("pyav",)
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="decord is not installed"):
        check_backend("decord")
    check_backend("auto")
