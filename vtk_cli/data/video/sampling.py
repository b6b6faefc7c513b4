"""Which frames of a video make a clip: pure functions of its length and rate. Frames count from 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vtk_cli.data.video.reader import ReadError
from vtk_cli.data.video.records import Sampling, Short

Frames = NDArray[np.int64]
Offset = Literal["start", "even"]
RATE = 30.0
"""Frames a second that the strides of `dense` are meant for."""


def window(sampling: Sampling, length: int, fps: float) -> float:
    """How many frames of the video a clip spans."""
    if sampling.kind == "segment":
        return length
    if sampling.kind == "stride":
        return sampling.stride * (sampling.frames - 1) + 1
    return max(sampling.frames * sampling.stride * fps / RATE, 1.0)


def clip_from(sampling: Sampling, start: float, length: int, fps: float, short: Short = "clamp") -> Frames:
    """The frames of the clip that starts at `start`; `dense` or `stride`.

    Args:
        sampling: which frames.
        start: of the clip, in frames of the video.
        length: frames of the video.
        fps: its frames a second.
        short: where the clip goes on after the video's end: `clamp` repeats the last frame, `loop` starts again.

    Returns:
        (T,)

    Raises:
        ReadError: the video is too short and `short` is `error`.
    """
    span = window(sampling, length, fps)
    if sampling.kind == "stride":
        frames = np.floor(start) + sampling.stride * np.arange(sampling.frames)
    else:
        frames = np.floor(np.linspace(start, start + span - 1, sampling.frames) + 1e-6)
    if short == "error" and frames[-1] >= length:
        raise ReadError("video has fewer frames than a clip")
    indices = frames.astype(np.int64)
    chosen: Frames = indices % length if short == "loop" else np.clip(indices, 0, length - 1)
    return chosen


def train_clip(sampling: Sampling, length: int, fps: float, rng: np.random.Generator, short: Short = "clamp") -> Frames:
    """A clip for training, (T,) frames: from a random start, or of every segment a random frame."""
    if sampling.kind == "segment":
        _check_segments(sampling, length, short)
        edges = _edges(sampling.frames, length)
        low, high = edges[:-1], edges[1:]
        drawn: Frames = np.clip(rng.integers(low, high + 1), 0, length - 1).astype(np.int64)
        return drawn
    return clip_from(sampling, _start(sampling, length, fps, rng), length, fps, short)


def train_views(
    sampling: Sampling,
    length: int,
    fps: float,
    rng: np.random.Generator,
    *,
    views: int,
    gap: tuple[float, float] = (0.0, float("inf")),
    short: Short = "clamp",
) -> list[Frames]:
    """The clips of a video that are compared, each (T,), each from a start of its own.

    Args:
        sampling, length, fps, rng, short: as for `train_clip`.
        views: how many.
        gap: least and most seconds between the starts of neighbours; where the video is too short for that, the
            starts come as near to it as they can.
    """
    if sampling.kind == "segment" or gap == (0.0, float("inf")):
        return [train_clip(sampling, length, fps, rng, short) for _ in range(views)]
    room = max(length - window(sampling, length, fps), 0.0)
    starts = [_start(sampling, length, fps, rng)]
    for _ in range(views - 1):
        least, most = (min(seconds * fps, room) for seconds in gap)
        step = rng.uniform(least, most)
        before = starts[-1]
        places = [place for place in (before - step, before + step) if 0 <= place <= room]
        starts.append(float(rng.choice(places)) if places else (0.0 if before > room / 2 else room))
    return [clip_from(sampling, start, length, fps, short) for start in starts]


def clips_for_test(
    sampling: Sampling, length: int, fps: float, clips: int, *, offset: Offset = "start", short: Short = "clamp"
) -> list[Frames]:
    """The clips of a video in a test, each (T,), spread over it.

    Args:
        sampling, length, fps, short: as for `clip_from`.
        clips: K, how many.
        offset: `start`: clip i starts at i / K of what is left beside a clip (PySlowFast; the last one never reaches
            the end); `even`: from the start to the very end; a single one lies in the middle.
    """
    if sampling.kind == "segment":
        _check_segments(sampling, length, short)
        edges = _edges(sampling.frames, length)
        low, high = edges[:-1], edges[1:]
        places = [(2 * number + 1) / (2 * clips) for number in range(clips)]
        return [np.floor(low + (high - low) * place).astype(np.int64) for place in places]
    room = max(length - window(sampling, length, fps), 0.0)
    if offset == "start":
        starts = [room * number / clips for number in range(clips)]
    else:
        starts = [room * number / (clips - 1) for number in range(clips)] if clips > 1 else [room / 2]
    return [clip_from(sampling, start, length, fps, short) for start in starts]


def crops_of(size: tuple[int, int], side: int, crops: int) -> Sequence[tuple[int, int]]:
    """The top left corners (top, left) of square crops of a frame: the middle, or both ends of the longer side too.

    Args:
        size: H, W, both at least `side`.
        side: of a crop.
        crops: 1 or 3.
    """
    height, width = size
    middle = (round((height - side) / 2), round((width - side) / 2))
    if crops == 1:
        return (middle,)
    if height > width:
        return ((0, middle[1]), middle, (height - side, middle[1]))
    return ((middle[0], 0), middle, (middle[0], width - side))


def _start(sampling: Sampling, length: int, fps: float, rng: np.random.Generator) -> float:
    room = max(length - window(sampling, length, fps), 0.0)
    return float(rng.integers(0, int(room) + 1)) if sampling.kind == "stride" else float(rng.uniform(0, room))


def _edges(frames: int, length: int) -> Frames:
    """Where the segments begin and end, T + 1 frame numbers."""
    edges: Frames = np.round((length - 1) / frames * np.arange(frames + 1)).astype(np.int64)
    return edges


def _check_segments(sampling: Sampling, length: int, short: Short) -> None:
    if short == "error" and length < sampling.frames:
        raise ReadError("video has fewer frames than a clip")
