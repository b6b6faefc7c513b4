"""Frames of a video by PyAV: exact, in any order, on one thread."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vtk_cli.data.video.reader import DOES_NOT_DECODE, USUAL_RATE, Pixels, ReadError, span_of

PYAV_ERRORS = (av.FFmpegError, OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)
"""What PyAV raises on damaged files."""


class PyavReader:
    """By PyAV: all packets are looked at once, then each group of frames is decoded from the key frame before it.

    Where a file breaks off, the frames before that are its frames.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._container = av.open(str(path))
        except PYAV_ERRORS as error:
            raise ReadError(DOES_NOT_DECODE) from error
        try:
            self._stream = _moving_pictures(self._container)
            self._stream.thread_type = "NONE"  # there are as many readers as workers
            rate = self._stream.average_rate or self._stream.guessed_rate
            self.fps = float(rate or USUAL_RATE)
            self._times, self._keys = self._survey()
        except PYAV_ERRORS as error:
            self.close()
            raise ReadError(DOES_NOT_DECODE) from error
        if not self._times:
            self.close()
            raise ReadError(DOES_NOT_DECODE)

    def __len__(self) -> int:
        return len(self._times)

    def get_batch(self, indices: Sequence[int]) -> Pixels:
        """See `VideoReader`."""
        wanted, back = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        if wanted[0] < 0 or wanted[-1] >= len(self):
            raise ReadError(f"video has no frame {wanted[-1]}")
        frames: Pixels | None = None
        try:
            for place, frame in enumerate(self._shown_at([self._times[index] for index in wanted.tolist()])):
                pixels = _upright(frame)
                if frames is None:
                    frames = np.empty((len(wanted), *pixels.shape), np.uint8)
                frames[place] = pixels
        except PYAV_ERRORS as error:
            raise ReadError(DOES_NOT_DECODE) from error
        if frames is None:
            raise ReadError(DOES_NOT_DECODE)
        return frames[back]

    def span(self, start: float, end: float) -> tuple[int, int]:
        """See `VideoReader`."""
        base = float(self._stream.time_base or 1 / self.fps)
        return span_of((np.array(self._times) - self._times[0]) * base, start, end)

    def close(self) -> None:
        """See `VideoReader`."""
        self._container.close()

    def _survey(self) -> tuple[list[int], list[tuple[int, int]]]:
        """When each frame is shown, in order, and (shown, decoded) of the key frames; nothing is decoded."""
        times: list[int] = []
        keys: list[tuple[int, int]] = []
        for packet in self._container.demux(self._stream):
            if packet.size == 0 or packet.is_corrupt or packet.is_discard:
                continue
            if packet.pts is None:
                return self._survey_by_decoding(), []
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
        return sorted(times), sorted(keys)

    def _survey_by_decoding(self) -> list[int]:
        self._rewind()
        return [time for time, _ in self._decoded()]

    def _rewind(self) -> None:
        self._container.seek(0, backward=True)

    def _shown_at(self, times: list[int]) -> Iterator[VideoFrame]:
        """The frame on show at each of `times`, which ascend."""
        decoded: Iterator[tuple[int, VideoFrame]] | None = None
        current: tuple[int, VideoFrame] | None = None
        coming: tuple[int, VideoFrame] | None = None
        for time in times:
            reached = coming or current
            if decoded is None or (reached is not None and self._key_before(time)[0] > reached[0]):
                decoded, current, coming = self._decoded_from(time), None, None
            while current is None or current[0] < time:
                coming = coming or next(decoded, None)
                if coming is None or (coming[0] > time and current is not None):
                    break
                current, coming = coming, None
            if current is None:
                raise EOFError
            yield current[1]

    def _key_before(self, time: int) -> tuple[int, int]:
        """(shown, decoded) of the last key frame shown at `time` or before; the first where there is none."""
        if not self._keys:
            return (self._times[0], 0)
        return self._keys[max(0, bisect_right(self._keys, time, key=lambda key: key[0]) - 1)]

    def _decoded_from(self, time: int) -> Iterator[tuple[int, VideoFrame]]:
        """Frames from one shown at `time` or before."""
        if self._keys:
            self._container.seek(self._key_before(time)[1], stream=self._stream, backward=True)
            frames = self._decoded()
            first = next(frames, None)
            if first is not None and first[0] <= time:
                yield first
                yield from frames
                return
        self._rewind()
        yield from self._decoded()

    def _decoded(self) -> Iterator[tuple[int, VideoFrame]]:
        """(when it is shown, frame); by its number where a frame does not say when."""
        number = 0
        for packet in self._container.demux(self._stream):
            if packet.is_corrupt:  # the last one of a file that breaks off
                continue
            for frame in packet.decode():
                if isinstance(frame, VideoFrame):
                    yield (number if frame.pts is None else frame.pts), frame
                    number += 1


def _moving_pictures(container: InputContainer) -> VideoStream:
    """The first video stream that is not the picture of an album's cover."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    container.close()
    raise ReadError("file has no video stream")


def _upright(frame: VideoFrame) -> Pixels:
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    turns = round(frame.rotation / 90) % 4
    return np.rot90(pixels, turns) if turns else pixels
