"""A video that is written frame by frame: whole, or not there."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path

_CODECS = ("libx264", "mpeg4")
_LARGEST_DENOMINATOR = 1001
"""Rates such as 30000/1001 stay exact."""


class VideoFile:
    """An MP4 in H.264 (MPEG-4 where PyAV was built without it); begun with its first frame.

    Args:
        path: `.mp4`. Without a frame, or after an error, nothing is left there.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._stack = path, ExitStack()
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is not None:
            if error is None:
                self._container.mux(self._stream.encode())
            self._container.close()
        self._stack.__exit__(kind, error, trace)

    def add(self, pixels: npt.NDArray[np.uint8], rate: float) -> None:
        """Append a frame, uint8 (H, W, 3), all of one size; an odd row or column is left out.

        Args:
            pixels: RGB.
            rate: frames a second, of the first frame.

        Raises:
            UserError: this PyAV writes no MP4.
        """
        height, width = (side // 2 * 2 for side in pixels.shape[:2])
        if self._container is None:
            self._open(height, width, rate)
        even = np.ascontiguousarray(pixels[:height, :width])
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

    def _open(self, height: int, width: int, rate: float) -> None:
        codec = next((name for name in _CODECS if name in av.codecs_available), None)
        if codec is None:
            raise UserError("this PyAV writes no MP4", str(self._path), "install PyAV from its wheels")
        temporary = self._stack.enter_context(atomic_path(self._path))
        self._container = av.open(str(temporary), "w")
        fraction = Fraction(rate).limit_denominator(_LARGEST_DENOMINATOR)
        self._stream = self._container.add_stream(codec, rate=fraction)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
