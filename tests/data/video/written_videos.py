"""Videos of every kind, written by PyAV, and readers that harm their process."""

from __future__ import annotations

import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vtk_cli.data.video.reader import VideoReader
from vtk_cli.data.video.reading import open_reader

B_FRAMES = {"bf": "3", "g": "12", "qp": "12", "threads": "1"}
TICK = Fraction(1, 1000)


def moving(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blocks of colours that move: no two frames are alike. (T, H, W, 3)."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    picture = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    return np.stack([np.roll(picture, (t, 2 * t), (0, 1))[:height, :width] for t in range(count)])


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 30,
    options: dict[str, str] | None = None,
    rotation: int = 0,
    times: list[int] | None = None,
) -> Path:
    """Write frames; `times` in milliseconds, else `rate` a second."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=B_FRAMES if options is None else options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = TICK
        if rotation:
            stream.set_display_rotation(rotation)
        for number, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                image.pts, image.time_base = times[number], TICK
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file with sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def opened_unless_named(path: Path, backend: str) -> VideoReader:
    """Aborts, hangs or fails on files of these names; `decord-aborts` harms decord alone."""
    if path.stem == "aborts" or (path.stem == "decord-aborts" and backend == "decord"):
        os.abort()
    if path.stem == "hangs" or (path.stem == "decord-hangs" and backend == "decord"):
        time.sleep(600)
    if path.stem == "surprises":
        raise ZeroDivisionError
    if path.stem == "memory":
        raise MemoryError
    return open_reader(path, backend)
