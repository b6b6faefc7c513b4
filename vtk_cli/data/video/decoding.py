"""Clips of videos, decoded in a process apart, so that damaged files cannot harm the one that asks.

decord ends its process on some damaged files and hangs on others (dmlc/decord #269); so each process that wants clips
has a child that decodes for it, one video after another. A child that dies or takes too long is replaced, and the file
is tried by the next decoder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from vtk_cli.data.video.child import Aborted, Child, Hung, limited
from vtk_cli.data.video.reader import Pixels, ReadError, VideoReader
from vtk_cli.data.video.reading import Backend, backends_for, open_reader
from vtk_cli.data.video.records import VideoFile
from vtk_cli.data.walking import file_size

Choose = Callable[[int, float], Sequence[np.ndarray[Any, np.dtype[np.int64]]]]
"""From how many frames there are and frames a second to the frames of each clip that is wanted."""


class BrokenVideo(Exception):
    """A video that no decoder can read, and why, in words that can be counted."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class Span:
    """What is there of an open video: frames from `first` on, `length` of them, at `fps` a second."""

    first: int
    length: int
    fps: float


class VideoDecoder:
    """Reads clips. May be copied to other processes, as workers of a `DataLoader` are: each starts its own child.

    Args:
        backend: of `BACKENDS`.
        timeout_s: how long one answer of a decoder may take.
        opened: how a video is opened, for tests.
    """

    def __init__(
        self,
        backend: Backend = "auto",
        timeout_s: float = 30.0,
        opened: Callable[[Path, str], VideoReader] = open_reader,
    ) -> None:
        self._backend, self._timeout_s, self._opened = backend, timeout_s, opened
        self._child: Child | None = None
        self._owner = 0
        self._harmful: dict[tuple[Path, str], str] = {}  # a file costs its time and a process once, not every epoch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_child": None}

    def fresh(self) -> VideoDecoder:
        """Another one with the same settings, for a thread of its own."""
        return VideoDecoder(self._backend, self._timeout_s, self._opened)

    @property
    def process(self) -> int | None:
        """The number of the process that decodes; None before the first clip."""
        return None if self._child is None else self._child.number

    def clips(self, video: VideoFile, choose: Choose) -> list[Pixels]:
        """Clips of a video, each uint8 (T, H, W, 3), upright.

        Args:
            video: the file, or a part of it.
            choose: which frames, counted from the start of the part.

        Raises:
            BrokenVideo: no decoder can read it.
        """
        reason = _missing(video.path)
        if reason:
            raise BrokenVideo(video.path, reason)
        for backend in backends_for(video.path, self._backend):
            if (video.path, backend) in self._harmful:
                reason = self._harmful[video.path, backend]
                continue
            try:
                return self._by(backend, video, choose)
            except ReadError as error:
                reason = str(error)
            except (Aborted, Hung) as error:
                aborted = isinstance(error, Aborted)
                reason = "video aborts the decoder" if aborted else "video decoder does not return"
                self._harmful[video.path, backend] = reason
                self.close()
        raise BrokenVideo(video.path, reason)

    def close(self) -> None:
        """End the child; the next clip starts another."""
        if self._child is not None and self._owner == os.getpid():
            self._child.close()
        self._child = None

    def _by(self, backend: str, video: VideoFile, choose: Choose) -> list[Pixels]:
        if self._child is None or self._owner != os.getpid():
            self._child, self._owner = Child(_Decoding(self._opened, self._timeout_s)), os.getpid()
        span = self._answer((str(video.path), backend, video.seconds, video.frames))
        wanted = [np.asarray(indices) for indices in choose(span.length, span.fps)]
        flat, place = np.unique(np.concatenate(wanted), return_inverse=True)
        frames: Pixels = self._answer((flat + span.first).tolist())
        ends = np.cumsum([len(indices) for indices in wanted])
        return [frames[part] for part in np.split(place.ravel(), ends[:-1])]

    def _answer(self, question: Any) -> Any:
        if self._child is None:
            raise Aborted
        found = self._child.ask(question, self._timeout_s)
        if isinstance(found, ReadError):
            raise found
        return found


@dataclass(frozen=True)
class _Decoding:
    """What the child does: opens what it is asked for, and sends frames of what is open."""

    opened: Callable[[Path, str], VideoReader]
    timeout_s: float

    def __call__(self, connection: Connection) -> None:
        reader: VideoReader | None = None
        while True:
            question = connection.recv()
            try:
                with limited(self.timeout_s):
                    if isinstance(question, tuple):
                        if reader is not None:
                            reader.close()
                        reader = None
                        path, backend, seconds, frames = question
                        reader = self.opened(Path(path), backend)
                        answer: Any = span_within(reader, seconds, frames)
                    else:
                        answer = reader.get_batch(question) if reader is not None else ReadError("nothing is open")
            except ReadError as error:
                answer = error
            except MemoryError:
                answer = ReadError("video does not fit into memory")
            connection.send(answer)


def span_within(reader: VideoReader, seconds: tuple[float, float] | None, frames: tuple[int, int] | None) -> Span:
    """The part of an open video that a list names.

    Raises:
        ReadError: it has nothing of the video.
    """
    first, end = (0, len(reader)) if seconds is None else reader.span(*seconds)
    if frames is not None:
        first, end = frames[0], min(end, frames[1])
    end = min(end, len(reader))
    if first >= end:
        raise ReadError("part begins after the end of its video")
    return Span(first, end - first, reader.fps)


def _missing(path: Path) -> str:
    """Why there is nothing to open; empty where there is."""
    if path.is_dir():
        return ""
    size = file_size(path)
    return "" if size else "video is missing" if size is None else "video is an empty file"
