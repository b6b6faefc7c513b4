"""Decodes videos in a process of its own, because damaged files can abort decord or make it hang.

decord 0.6 ends the whole process on some damaged MP4 files, and never returns from others; neither can be caught in
the process that it happens in.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import av

from vtk_cli.data.video.reader import ReadError
from vtk_cli.data.video.reading import FrameFolderReader
from vtk_cli.data.walking import file_size
from vtk_cli.errors import JobError

try:
    import decord
except ImportError:  # no wheel for this platform: PyAV reads everything
    decord = None

PATIENCE_S = 60.0
"""How long a video may take to decode, besides a second a megabyte."""
PYAV_ERRORS = (av.FFmpegError, OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)
"""What PyAV raises on damaged files."""


@dataclass(frozen=True)
class Probed:
    """Whether a video decodes: the number of frames, or why not."""

    frames: int
    fault: str = ""


def decode_all(path: Path) -> Probed:
    """Decode every frame with decord, or with PyAV where decord fails or is not there. May abort the process.

    Args:
        path: of a video, or of a folder whose images are the frames of one.
    """
    if path.is_dir():
        return _decode_folder(path)
    size = file_size(path)
    if not size:
        return Probed(0, "video is missing" if size is None else "video is an empty file")
    if decord is not None:
        try:
            reader = decord.VideoReader(str(path), num_threads=1)
            count = len(reader)
            for _ in range(count):
                reader.next()
        except (decord.DECORDError, RuntimeError, StopIteration):
            count = 0
        if count:
            return Probed(count)
    return _decode_with_pyav(path)


def _decode_folder(path: Path) -> Probed:
    try:
        reader = FrameFolderReader(path)
        size = reader.get_batch([0]).shape
        for index in range(1, len(reader)):
            if reader.get_batch([index]).shape != size:
                return Probed(0, "frames are of different sizes")
    except ReadError as error:
        return Probed(0, str(error))
    return Probed(len(reader))


def _decode_with_pyav(path: Path) -> Probed:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return Probed(0, "file has no video stream")
            promised = container.streams.video[0].frames
            count = sum(1 for _ in container.decode(video=0))
    except PYAV_ERRORS:
        return Probed(0, "video does not decode")
    if count == 0:
        return Probed(0, "video does not decode")
    return Probed(count, "video breaks off before its last frame" if count < promised else "")


class VideoProbe:
    """A process that decodes one video after another; replaced when a video kills it or takes too long.

    Args:
        decode: what it does with a video.
        patience_s: see `PATIENCE_S`.
    """

    def __init__(self, decode: Callable[[Path], Probed] = decode_all, patience_s: float = PATIENCE_S) -> None:
        self._decode, self._patience_s = decode, patience_s
        self._started: bool
        self._start()

    def __enter__(self) -> VideoProbe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, path: Path) -> Probed:
        """Decode `path`, whatever it does to the process."""
        self._await_start()
        patience_s = self._patience_s + (file_size(path) or 0) / 1e6
        try:
            self._connection.send(path)
            if self._connection.poll(patience_s):
                answer: Probed = self._connection.recv()
                return answer
            fault = "video decoder does not return"
        except (EOFError, OSError):
            fault = "video aborts the decoder"
        self._stop()
        self._start()
        return Probed(0, fault)

    def _await_start(self) -> None:
        """Wait for the process to say that it is up, so that a video is not charged for the time it takes to start."""
        if self._started:
            return
        try:
            self._connection.recv()
        except EOFError as error:
            raise JobError("the process that decodes videos does not start") from error
        self._started = True

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, self._decode), daemon=True)
        self._process.start()
        self._started = False
        theirs.close()

    def _stop(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()


def _answer(connection: Connection, decode: Callable[[Path], Probed]) -> None:
    """Say that the process is up, then decode the paths that come, silently, until the other end closes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        connection.send(None)
        while True:
            connection.send(decode(connection.recv()))
    except (EOFError, OSError, KeyboardInterrupt):
        return
