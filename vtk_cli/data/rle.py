"""Reads COCO masks without trusting them: pycocotools reads past its buffers on wrong run lengths.

It also takes memory for each pixel along the border of a polygon, unasked and unchecked.

A run-length mask is `{"size": [height, width], "counts": ...}`: the lengths of runs of 0 and 1 in turn, 0 first, down
the columns. Compressed counts are a string in which each length takes characters of 6 bits (code - 48): 5 bits of the
number, least first, and one that says that more follow; the number is signed and, from the fourth run on, a difference
to the run two before (pycocotools, common/maskApi.c, rleToString).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_PIXELS = 2**30
"""Of an image with masks: more than Pillow decodes, and fewer than fit into a run of pycocotools."""
LONGEST_BORDER = 5_000_000
"""In pixels, of the polygons of an object: pycocotools takes 80 bytes for each while it draws."""
_LONGEST_NUMBER = 30
"""Bits: seven characters, as many as pycocotools reads into its 32."""


def is_drawable(parts: Iterable[npt.NDArray[np.float64]]) -> bool:
    """Whether closed polygons, each (P, 2) x and y in pixels, have borders that can be drawn in bounded memory."""
    length = 0.0
    for points in parts:
        steps = np.abs(points - np.roll(points, 1, axis=0))
        length += float(steps.max(axis=1, initial=0.0).sum()) + len(points)
    return length <= LONGEST_BORDER


def run_lengths(mask: Any, height: int, width: int) -> list[int]:
    """The runs of a COCO mask, compressed or not, checked: they are not negative and fill `height` x `width`.

    Raises:
        ValueError: it is not a mask of this size.
    """
    if not isinstance(mask, dict) or mask.get("size") != [height, width]:
        raise ValueError("the size is not that of the image")
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise ValueError(f"no image has {height} x {width} pixels")
    counts = mask.get("counts")
    runs = _decompressed(counts) if isinstance(counts, (str, bytes)) else counts
    if not isinstance(runs, list) or any(not isinstance(run, int) or isinstance(run, bool) for run in runs):
        raise ValueError("the counts are neither a string nor a list of integers")
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError("the runs do not fill the image")
    return runs


def _decompressed(text: str | bytes) -> list[int]:
    try:
        codes = text if isinstance(text, bytes) else text.encode("ascii")
    except UnicodeEncodeError as error:
        raise ValueError("the counts hold a character that is no code") from error
    runs: list[int] = []
    value = shift = 0
    for code in codes:
        bits = code - 48
        if not 0 <= bits < 64:
            raise ValueError("the counts hold a character that is no code")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            if shift > _LONGEST_NUMBER:
                raise ValueError("the counts hold a number that is too large")
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the counts end within a number")
    return runs
