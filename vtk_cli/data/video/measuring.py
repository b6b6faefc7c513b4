"""How fast clips are decoded, and how much memory that takes, on videos that are written for it.

The videos are 320x240 H.264 with B-frames and a key frame at most every 250 frames, as those of Kinetics after the
usual resizing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import numpy as np

from vtk_cli.data.painting import Bytes, load_photos
from vtk_cli.data.video.child import Aborted, Child, Hung
from vtk_cli.data.video.clips import ClipSource
from vtk_cli.data.video.decoding import VideoDecoder
from vtk_cli.data.video.reading import Backend, backends_for, open_reader
from vtk_cli.data.video.records import Sampling, VideoFile
from vtk_cli.data.video.sampling import Frames, train_clip
from vtk_cli.errors import JobError

SIZE = (240, 320)
FRAMES, RATE = 300, 30
SAMPLING = Sampling("dense", frames=8, stride=8)
_ENCODER = {"crf": "23", "preset": "medium", "threads": "1", "bf": "3"}
CLIP_BYTES = SAMPLING.frames * SIZE[0] * SIZE[1] * 3
"""What a clip takes."""
_EVERY = 50
"""So many clips lie between two looks at the memory."""
_PATIENCE_S = 600.0
"""How long as many clips may take."""


@dataclass(frozen=True)
class Memory:
    """The memory of a worker and of its decoder together, at its peak so far.

    Args:
        clips: how many had been read, ascending.
        peaks: bytes, by `clips`.
    """

    clips: tuple[int, ...]
    peaks: tuple[int, ...]

    @property
    def growth(self) -> int:
        """Bytes that the peak has risen by since the first tenth of the clips; flat: less than a few clips have."""
        start = next(peak for clips, peak in zip(self.clips, self.peaks, strict=True) if clips >= self.clips[-1] / 10)
        return self.peaks[-1] - start


def write_clips(folder: Path, count: int, *, frames: int = FRAMES) -> list[VideoFile]:
    """Write videos of 320x240 at 30 frames a second: a window that moves over a photo, with grain.

    Args:
        folder: where to.
        count: how many.
        frames: of each.
    """
    photos = load_photos()
    written = []
    for number in range(count):
        path = folder / f"{number:03d}.mp4"
        _write(path, _panned(photos[number % len(photos)], frames, np.random.default_rng(number)))
        written.append(VideoFile(path, None, str(path)))
    return written


def clips_per_second(videos: Sequence[VideoFile], backend: Backend, clips: int) -> float:
    """Clips of 8x8 frames a second, from a random start each, as a worker reads them: decoded in a process apart.

    Args:
        videos: taken in turns.
        backend: the decoder.
        clips: how many are timed; one before them is not.

    Raises:
        BrokenVideo: a video cannot be read.
    """
    decoder, rng = VideoDecoder(backend), np.random.default_rng(0)
    try:
        decoder.clips(videos[0], partial(_one_clip, rng=rng))
        start = time.perf_counter()
        for number in range(clips):
            decoder.clips(videos[number % len(videos)], partial(_one_clip, rng=rng))
        return clips / (time.perf_counter() - start)
    finally:
        decoder.close()


def clips_per_second_unprotected(videos: Sequence[VideoFile], backend: Backend, clips: int) -> float:
    """As `clips_per_second`, decoded in this process: what protection against damaged files costs is the difference."""
    rng = np.random.default_rng(0)
    name = backends_for(videos[0].path, backend)[0]

    def read(video: VideoFile) -> None:
        reader = open_reader(video.path, name)
        try:
            reader.get_batch(_one_clip(len(reader), reader.fps, rng=rng)[0].tolist())
        finally:
            reader.close()

    read(videos[0])
    start = time.perf_counter()
    for number in range(clips):
        read(videos[number % len(videos)])
    return clips / (time.perf_counter() - start)


def memory_over(videos: Sequence[VideoFile], backend: Backend, clips: int) -> Memory | None:
    """The memory of a fresh process that reads clips of 8x8 frames as a worker does, one after another.

    Args:
        videos: taken in turns.
        backend: the decoder.
        clips: how many.

    Returns:
        None where the system does not tell (it takes Linux's `/proc`).

    Raises:
        JobError: the process does not survive it.
    """
    if not Path("/proc/self/status").exists():
        return None
    looks: list[tuple[int, int]] = []
    with Child(partial(_read_many, list(videos), backend, clips)) as worker:
        while not looks or looks[-1][0] < clips:
            try:
                looks.append(worker.receive(_PATIENCE_S))
            except (Aborted, Hung) as error:
                raise JobError(f"the worker ended or hung after {looks[-1][0] if looks else 0} clips") from error
    return Memory(*zip(*looks, strict=True))


def _read_many(videos: list[VideoFile], backend: Backend, clips: int, connection: Connection) -> None:
    """What the worker does: read, and say its memory now and then."""
    rng = np.random.default_rng(0)
    decoder = VideoDecoder(backend)
    source = ClipSource(videos, decoder)
    for number in range(1, clips + 1):
        source.clips(number % len(videos), partial(_one_clip, rng=rng))
        if number % _EVERY == 0 or number == clips:
            connection.send((number, _peak(os.getpid()) + _peak(decoder.process)))
    source.close()


def _peak(process: int | None) -> int:
    """The most memory that a process has had so far, in bytes."""
    if process is None:
        return 0
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _one_clip(length: int, fps: float, *, rng: np.random.Generator) -> list[Frames]:
    return [train_clip(SAMPLING, length, fps, rng)]


def _panned(photo: Bytes, frames: int, rng: np.random.Generator) -> Bytes:
    """(T, 240, 320, 3)."""
    height, width = SIZE
    top, left = (int(rng.integers(0, room - 1)) for room in (photo.shape[0] - height, photo.shape[1] - width))
    tops = _there_and_back(top, photo.shape[0] - height, frames, 1)
    lefts = _there_and_back(left, photo.shape[1] - width, frames, 2)
    grain = rng.normal(0, 4, (8, height, width, 1))
    shown = [
        np.clip(photo[y : y + height, x : x + width] + grain[t % len(grain)], 0, 255)
        for t, (y, x) in enumerate(zip(tops, lefts, strict=True))
    ]
    return np.stack(shown).astype(np.uint8)


def _there_and_back(start: int, room: int, frames: int, speed: int) -> list[int]:
    """Places in [0, room] that a point passes which turns round at the ends."""
    return [room - abs(room - (start + speed * t) % (2 * room)) for t in range(frames)]


def _write(path: Path, frames: Bytes) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options=_ENCODER)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
