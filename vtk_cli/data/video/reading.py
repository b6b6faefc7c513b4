"""Readers of videos: frames by their index, upright, by decord, PyAV, torchcodec, or from a folder of images.

Frame i is the i-th in the order of presentation, also where the frame rate varies, as in PySlowFast's decord path and
in torchcodec. A display matrix is applied as torchcodec (from 0.11) and decord do. On 8-bit 4:2:0 video of even size
decord and PyAV agree bit by bit; elsewhere they interpolate colour differently. decord 0.6 miscounts after it jumps to
a key frame that frames shown before it follow (open groups of pictures), in AVI with B-frames and in transport
streams; PyAV does not.

Everything here may abort or hang on damaged files, decord above all: `decoding` runs it in a process apart. Imports no
torch but for torchcodec, so that such a process starts in a fraction of a second.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from vtk_cli.data.image_layouts import is_image
from vtk_cli.data.images import FORMATS
from vtk_cli.data.video.pyav_reader import PYAV_ERRORS, PyavReader
from vtk_cli.data.video.reader import DOES_NOT_DECODE, USUAL_RATE, Pixels, ReadError, VideoReader, span_of
from vtk_cli.errors import UserError

try:
    import decord
except ImportError:  # no wheel for this platform: PyAV reads everything
    decord = None

Backend = Literal["auto", "decord", "pyav", "torchcodec", "frames"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


class DecordReader:
    """By decord, on one thread."""

    def __init__(self, path: Path) -> None:
        if decord is None:
            raise ReadError("decord is not installed")
        self._errors = (decord.DECORDError, RuntimeError, StopIteration, IndexError)
        try:
            self._reader = decord.VideoReader(str(path), num_threads=1)
            self._length = len(self._reader)
            self.fps = float(self._reader.get_avg_fps()) or USUAL_RATE
        except self._errors as error:
            raise ReadError(DOES_NOT_DECODE) from error
        if not self._length:
            raise ReadError(DOES_NOT_DECODE)

    def __len__(self) -> int:
        return self._length

    def get_batch(self, indices: Sequence[int]) -> Pixels:
        """See `VideoReader`."""
        wanted, back = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        try:
            frames: Pixels = self._reader.get_batch(wanted.tolist()).asnumpy()
        except self._errors as error:
            raise ReadError(DOES_NOT_DECODE) from error
        return frames if len(wanted) == len(indices) and bool((np.diff(back) > 0).all()) else frames[back]

    def span(self, start: float, end: float) -> tuple[int, int]:
        """See `VideoReader`."""
        try:
            shown = self._reader.get_frame_timestamp(range(self._length))[:, 0]
        except self._errors as error:
            raise ReadError(DOES_NOT_DECODE) from error
        return span_of(shown - shown[0], start, end)

    def close(self) -> None:
        """See `VideoReader`."""
        self._reader = None


class TorchcodecReader:
    """By torchcodec, on one thread, every frame counted ("exact")."""

    def __init__(self, path: Path) -> None:
        decoders = importlib.import_module("torchcodec.decoders")
        try:
            self._decoder = decoders.VideoDecoder(
                str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
            )
            self._length = len(self._decoder)
        except (RuntimeError, ValueError, OSError) as error:
            raise ReadError(DOES_NOT_DECODE) from error
        if not self._length:
            raise ReadError(DOES_NOT_DECODE)
        self.fps = float(self._decoder.metadata.average_fps or USUAL_RATE)

    def __len__(self) -> int:
        return self._length

    def get_batch(self, indices: Sequence[int]) -> Pixels:
        """See `VideoReader`."""
        try:
            frames: Pixels = self._decoder.get_frames_at([int(index) for index in indices]).data.numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            raise ReadError(DOES_NOT_DECODE) from error
        return frames

    def span(self, start: float, end: float) -> tuple[int, int]:
        """See `VideoReader`."""
        try:
            shown = self._decoder.get_frames_at(list(range(self._length))).pts_seconds.numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            raise ReadError(DOES_NOT_DECODE) from error
        return span_of(shown - shown[0], start, end)

    def close(self) -> None:
        """See `VideoReader`."""
        self._decoder = None


class FrameFolderReader:
    """The images of a folder in the order of the number in their names: `img_00001.jpg`, `000001.jpg` ..."""

    fps = USUAL_RATE

    def __init__(self, folder: Path) -> None:
        try:
            self._frames = sorted((file for file in folder.iterdir() if is_image(file.name)), key=_number)
        except OSError as error:
            raise ReadError("the folder of frames cannot be read") from error
        if not self._frames:
            raise ReadError("folder holds no frames")

    def __len__(self) -> int:
        return len(self._frames)

    def get_batch(self, indices: Sequence[int]) -> Pixels:
        """See `VideoReader`."""
        frames = {index: self._image(index) for index in dict.fromkeys(indices)}
        if len({frame.shape for frame in frames.values()}) > 1:
            raise ReadError("frames are of different sizes")
        return np.stack([frames[index] for index in indices])

    def span(self, start: float, end: float) -> tuple[int, int]:
        """See `VideoReader`."""
        return span_of(np.arange(len(self)) / self.fps, start, end)

    def close(self) -> None:
        """See `VideoReader`."""

    def _image(self, index: int) -> Pixels:
        try:
            with Image.open(self._frames[index], formats=FORMATS) as image:
                return np.asarray(image.convert("RGB"), np.uint8)
        except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, *PYAV_ERRORS) as error:
            raise ReadError("a frame does not decode") from error


@dataclass(frozen=True)
class _Named:
    open: Callable[[Path], VideoReader]
    module: str


_READERS = {
    "decord": _Named(DecordReader, "decord"),
    "pyav": _Named(PyavReader, "av"),
    "torchcodec": _Named(TorchcodecReader, "torchcodec"),
    "frames": _Named(FrameFolderReader, "PIL"),
}


def open_reader(path: Path, backend: str) -> VideoReader:
    """Open a video in this process; `decoding.VideoDecoder` does so in a safe one.

    Args:
        path: of a file, or with `frames` of a folder.
        backend: `decord`, `pyav`, `torchcodec` or `frames`.

    Raises:
        ReadError: it cannot be opened.
    """
    return _READERS[backend].open(path)


def backends_for(path: Path, backend: Backend) -> tuple[str, ...]:
    """Which backends to try on a file, in this order: `auto` is decord where there is one, then PyAV."""
    if backend != "auto":
        return (backend,)
    if path.is_dir():
        return ("frames",)
    return ("decord", "pyav") if decord is not None else ("pyav",)


def check_backend(backend: Backend) -> None:
    """Raise `UserError` where a backend is asked for that is not installed."""
    if backend != "auto" and importlib.util.find_spec(_READERS[backend].module) is None:
        raise UserError(f"{backend} is not installed", "--backend", f"pip install {backend}, or choose auto")


def _number(file: Path) -> tuple[int, str]:
    numbers = re.findall(r"\d+", file.stem)
    return (int(numbers[-1]) if numbers else -1), file.name
