"""What it is to read a video: frames by their index, upright. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
USUAL_RATE = 30.0
"""Frames a second where a file does not say, and of a folder of images."""
DOES_NOT_DECODE = "video does not decode"


class ReadError(Exception):
    """A video that cannot be read, and why, in words that `vtk data check` counts."""


class VideoReader(Protocol):
    """An open video.

    `fps`: frames a second, the mean where they vary.
    """

    fps: float

    def __len__(self) -> int:
        """How many frames there are."""

    def get_batch(self, indices: Sequence[int]) -> Pixels:
        """The frames at `indices`, in any order, also repeated: uint8 (T, H, W, 3), RGB, upright.

        Raises:
            ReadError: they cannot be decoded.
        """

    def span(self, start: float, end: float) -> tuple[int, int]:
        """The frames shown from `start` to `end` seconds after the first: (first, the one after the last)."""

    def close(self) -> None:
        """Let go of the file."""


def span_of(shown: npt.NDArray[np.floating[Any]], start: float, end: float) -> tuple[int, int]:
    """`shown`: (N,) seconds, ascending. At least one frame: the one on show at `start`."""
    if start > shown[-1] + 1:
        raise ReadError("part begins after the end of its video")
    first = max(0, int(np.searchsorted(shown, start + 1e-6, side="right")) - 1)
    return first, max(first + 1, int(np.searchsorted(shown, end - 1e-6, side="left")))
