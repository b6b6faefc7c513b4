"""Frames of videos, whatever the decoder does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from vtk_cli.console import Console
from vtk_cli.data.moving_digits import FPS, draw_clips, write_h264
from vtk_cli.data.video_frames import Frame, read_with_pyav, video_frames
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    _, frames = next(draw_clips("val", 1))
    write_h264(path, frames)
    return path, frames


def aborts(path: Path, every: int):
    yield from (frame for frame in read_with_pyav(path, every) if frame.index < 3)
    os.abort()


def hangs(path: Path, every: int):
    yield next(read_with_pyav(path, every))
    time.sleep(60)


def fails(path: Path, every: int):
    raise ValueError("damaged")
    yield


def test_every_frame_comes_in_order(clip):
    path, frames = clip
    found = [*video_frames(path, console=QUIET)]
    assert [frame.index for frame in found] == [*range(len(frames))]
    assert {frame.rate for frame in found} == {float(FPS)}
    difference = np.abs(np.stack([frame.pixels for frame in found]).astype(int) - frames)
    assert difference.mean() < 12  # H.264 is lossy


def test_every_nth_frame_alone(clip):
    path, frames = clip
    assert [frame.index for frame in video_frames(path, every=5, console=QUIET)] == [*range(0, len(frames), 5)]


@pytest.mark.parametrize("first", [aborts, fails])
def test_where_a_decoder_fails_the_next_goes_on_after_its_frames(first, clip):
    path, frames = clip
    found = [*video_frames(path, console=QUIET, readers=(first, read_with_pyav))]
    assert [frame.index for frame in found] == [*range(len(frames))]
    assert all(isinstance(frame, Frame) for frame in found)


def test_a_decoder_that_hangs_is_ended_and_what_it_gave_is_kept(clip, capsys):
    found = [*video_frames(clip[0], console=QUIET, readers=(hangs,), patience_s=10)]
    assert [frame.index for frame in found] == [0]
    assert "hang" in capsys.readouterr().err


def test_a_file_without_a_frame_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(UserError, match="does not decode"):
        next(video_frames(tmp_path / "a.mp4", console=QUIET))
