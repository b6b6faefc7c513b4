"""The frames of a video, decoded in a process of its own: decord first, PyAV where that fails.

decord 0.6 ends the whole process on some damaged MP4 files, and never returns from others; neither can be caught in the
process that it happens in. What is delivered before such an end is kept, and PyAV goes on after it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from vtk_cli.console import Console
from vtk_cli.data.video_probe import PATIENCE_S, PYAV_ERRORS
from vtk_cli.errors import UserError

try:
    import decord
except ImportError:  # no wheel for this platform: PyAV reads everything
    decord = None

Pixels = npt.NDArray[np.uint8]
USUAL_RATE = 25.0
"""Frames a second where the file does not say."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video.

    Args:
        index: from 0, of all frames.
        rate: frames a second of the video.
        pixels: uint8 (H, W, 3), RGB.
    """

    index: int
    rate: float
    pixels: Pixels


Reader = Callable[[Path, int], Iterator[Frame]]


def video_frames(
    path: Path,
    *,
    every: int = 1,
    console: Console,
    readers: tuple[Reader, ...] | None = None,
    patience_s: float = PATIENCE_S,
) -> Iterator[Frame]:
    """Every `every`-th frame of a video, in order.

    Args:
        path: of the video.
        every: 1 for all.
        console: hears of a video that breaks off.
        readers: what decodes, each tried where the one before has failed; decord and PyAV if None.
        patience_s: how long a frame may take.

    Raises:
        UserError: not a single frame can be decoded.
    """
    if readers is None:
        readers = (read_with_decord, read_with_pyav) if decord is not None else (read_with_pyav,)
    delivered, fault = -1, "does not decode"
    for reader in readers:
        with _Decoder(reader, path, every, patience_s) as decoder:
            while isinstance(answer := decoder.next(), Frame):
                if answer.index > delivered:
                    delivered = answer.index
                    yield answer
        if answer is None:
            return
        fault = answer
    if delivered < 0:
        raise UserError(f"the video {fault}", str(path), "give another file, or write it anew")
    console.warn(f"{path}: the video {fault} after frame {delivered}; what came before it was used")


def read_with_decord(path: Path, every: int) -> Iterator[Frame]:
    """By decord; may abort the process."""
    reader = decord.VideoReader(str(path), num_threads=1)
    rate = float(reader.get_avg_fps()) or USUAL_RATE
    for index in range(len(reader)):
        decoded = reader.next()
        if index % every == 0:
            yield Frame(index, rate, decoded.asnumpy())


def read_with_pyav(path: Path, every: int) -> Iterator[Frame]:
    """By PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or USUAL_RATE)
        for index, decoded in enumerate(container.decode(stream)):
            if index % every == 0 and isinstance(decoded, VideoFrame):
                yield Frame(index, rate, np.asarray(decoded.to_ndarray(format="rgb24"), np.uint8))


class _Decoder:
    """A process that decodes one video."""

    def __init__(self, reader: Reader, path: Path, every: int, patience_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, self._theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_decode, args=(self._theirs, reader, path, every), daemon=True)
        self._patience_s = patience_s

    def __enter__(self) -> _Decoder:
        self._process.start()
        self._theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()

    def next(self) -> Frame | str | None:
        """The next frame; None after the last; or what went wrong, in words that follow "the video"."""
        try:
            if not self._connection.poll(self._patience_s):
                return "makes its decoder hang"
            answer: Any = self._connection.recv()
        except (EOFError, OSError):
            return "aborts its decoder"
        return answer if isinstance(answer, Frame) or answer is None else str(answer)


def _decode(connection: Connection, reader: Reader, path: Path, every: int) -> None:
    """Send the frames, then None; a text where the reader says that it fails."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    failures = (*PYAV_ERRORS, RuntimeError, StopIteration, *((decord.DECORDError,) if decord is not None else ()))
    sent = 0
    try:
        for frame in reader(path, every):
            connection.send(frame)
            sent += 1
        connection.send(None if sent else "has no frames")
    except BrokenPipeError:  # nobody listens any more
        return
    except failures:
        connection.send("breaks off" if sent else "does not decode")
