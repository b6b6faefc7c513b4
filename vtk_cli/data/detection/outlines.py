"""The outline of an instance as data files have it, polygons or a run-length mask, and the pixels it covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from pycocotools import mask as coco_mask

from vtk_cli.data.coco_faults import SLACK

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Polygons:
    """What lies within any of some polygons, each (P, 2) x and y in pixels, P >= 3."""

    parts: tuple[Floats, ...]


@dataclass(frozen=True)
class RunLengths:
    """COCO's compressed run lengths down the columns of an image."""

    height: int
    width: int
    counts: bytes


Outline = Polygons | RunLengths


def outline_of(segmentation: Any, height: int, width: int) -> Outline | None:
    """The outline that a COCO `segmentation` describes; None where it says that there is none.

    It must decode; polygons may reach outside the image and are clipped where that is by more than `SLACK`.
    """
    if segmentation in (None, []):
        return None
    if isinstance(segmentation, list):
        parts = (np.asarray(part, np.float64).reshape(-1, 2) for part in segmentation)
        return Polygons(tuple(np.clip(part, -SLACK, (width + SLACK, height + SLACK)) for part in parts))
    counts = segmentation["counts"]
    if isinstance(counts, list):
        counts = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return RunLengths(height, width, counts.encode() if isinstance(counts, str) else counts)


def run_lengths_of(outline: Outline, height: int, width: int) -> RunLengths:
    """The pixels of an image of `height` x `width` that an outline covers, as COCO draws them; see `outline_mask`."""
    if isinstance(outline, RunLengths):
        return outline
    runs = coco_mask.merge(coco_mask.frPyObjects([part.ravel().tolist() for part in outline.parts], height, width))
    return RunLengths(height, width, runs["counts"])


def outline_mask(outline: Outline | None, height: int, width: int) -> Bools:
    """bool (height, width): which pixels belong to an instance; none where it has no outline."""
    if outline is None:
        return np.zeros((height, width), np.bool_)
    runs = run_lengths_of(outline, height, width)
    mask: Bools = coco_mask.decode(coco_rle(runs)).astype(np.bool_)
    return mask


def outline_of_mask(mask: Bools) -> RunLengths:
    """The run lengths of bool (H, W)."""
    runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return RunLengths(mask.shape[0], mask.shape[1], runs["counts"])


def largest_ring(mask: Bools) -> Floats:
    """The outer border of the largest connected part of a mask, as YOLO's files have one polygon an object.

    Args:
        mask: bool (H, W).

    Returns:
        float64 (P, 2), P >= 3: x, y in pixels from the image's corner, so a pixel's centre is at .5; empty (0, 2) of
        an empty mask. Between pixels the border runs half way, which cuts corners off.
    """
    padded = np.pad(mask, 1).astype(np.float64)
    rings = [np.asarray(line, np.float64) for line in contour_generator(z=padded).lines(0.5)]
    if not rings:
        return np.zeros((0, 2))
    ring: Floats = max(rings, key=_shoelace)[:-1]
    # in the padded mask, the centre of the image's first pixel is at 1
    return np.clip(ring - 0.5, 0, (mask.shape[1], mask.shape[0]))


def coco_rle(runs: RunLengths) -> dict[str, Any]:
    """The dictionary that pycocotools takes; in JSON, decode its counts."""
    return {"size": [runs.height, runs.width], "counts": runs.counts}


def segmentation_of(outline: Outline) -> Any:
    """The COCO `segmentation` of an outline as JSON has it: polygons, or compressed run lengths."""
    if isinstance(outline, Polygons):
        return [part.ravel().tolist() for part in outline.parts]
    return {"size": [outline.height, outline.width], "counts": outline.counts.decode()}


def outline_area(outline: Outline) -> float:
    """The area in pixels: of polygons by the shoelace formula, overlaps counted twice; of runs exactly."""
    if isinstance(outline, RunLengths):
        return float(coco_mask.area(coco_rle(outline)))
    return sum(_shoelace(part) for part in outline.parts)


def outline_box(parts: Sequence[Floats]) -> Floats:
    """The box (x1, y1, x2, y2) around polygons."""
    points = np.concatenate(parts)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _shoelace(points: Floats) -> float:
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
