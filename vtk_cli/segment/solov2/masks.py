"""Masks from kernels, and what is measured of them (arXiv 2003.10152, Section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.segment.solov2.predictions import Frame

CHUNK = 256
"""How many masks are held in float32 at a time, at the size of the mask features."""
PIXELS = 2**24
"""How many mask pixels are held in float32 at a time, at the size of the image: 64 MiB."""
HALF = 0.5
"""A pixel whose probability is greater belongs to the mask."""


@dataclass(frozen=True)
class MaskMeasures:
    """Of n masks.

    Args:
        areas: (n,) float, in cells of the mask features.
        maskness: (n,) float in [0, 1]: the mean probability inside the mask; 0 of an empty one.
        covers: (n,) bool, whether a mask has a cell within 1 of its point; without points, whether it has any.
    """

    areas: Tensor
    maskness: Tensor
    covers: Tensor


def mask_logits(kernels: Tensor, features: Tensor) -> Tensor:
    """(n, H, W): the 1 x 1 convolutions of features (E, H, W) by kernels (n, E), as one matrix product."""
    E, H, W = features.shape
    return (kernels @ features.reshape(E, H * W)).reshape(-1, H, W)


def probabilities(kernels: Tensor, features: Tensor) -> Iterator[Tensor]:
    """The masks' probabilities (<= `CHUNK`, H, W), in chunks, of kernels (n, E) and features (E, H, W)."""
    for start in range(0, len(kernels), CHUNK):
        yield mask_logits(kernels[start : start + CHUNK], features).sigmoid_()


def measure(kernels: Tensor, features: Tensor, points: tuple[Tensor, Tensor] | None = None) -> MaskMeasures:
    """Measure masks without keeping them.

    Args:
        kernels: (n, E).
        features: (E, H, W).
        points: rows and columns, (n,) int64, of a cell of the features for each mask.
    """
    areas, maskness, covers = [], [], []
    for number, chunk in enumerate(probabilities(kernels, features)):
        inside = chunk > HALF
        areas.append(inside.flatten(1).sum(1).float())
        maskness.append((chunk * inside).flatten(1).sum(1) / (areas[-1] + 1e-8))
        part = slice(number * CHUNK, number * CHUNK + len(chunk))
        covers.append(areas[-1] > 0 if points is None else _near(inside, points[0][part], points[1][part]))
    nothing = features.new_zeros(0)
    return MaskMeasures(
        areas=torch.cat([nothing, *areas]),
        maskness=torch.cat([nothing, *maskness]),
        covers=torch.cat([nothing.bool(), *covers]),
    )


def binary_masks(kernels: Tensor, features: Tensor) -> Tensor:
    """(n, H, W) bool, at the size of the features."""
    return torch.cat([features.new_zeros((0, *features.shape[1:]), dtype=torch.bool), *_binary(kernels, features)])


def image_masks(kernels: Tensor, features: Tensor, frame: Frame) -> Tensor:
    """(n, height, width) bool at the size of the upright image.

    Probabilities are brought to the size of the padded canvas, cropped to the resized image, and brought to the size
    of the original, all bilinearly.

    Args:
        kernels: (n, E).
        features: (E, H, W) over the padded canvas.
        frame: of the image.
    """
    masks = torch.zeros((len(kernels), *frame.original), dtype=torch.bool, device=features.device)
    pixels = max(frame.padded[0] * frame.padded[1], frame.original[0] * frame.original[1])
    step = max(1, min(CHUNK, PIXELS // pixels))
    for start in range(0, len(kernels), step):
        part = slice(start, start + step)
        small = mask_logits(kernels[part], features).sigmoid_()[None]
        large = F.interpolate(small, size=frame.padded, mode="bilinear", align_corners=False)
        resized = large[:, :, : frame.resized[0], : frame.resized[1]]
        if frame.original != frame.resized:
            resized = F.interpolate(resized, size=frame.original, mode="bilinear", align_corners=False)
        masks[part] = resized[0] > HALF
    return masks


def pairwise_iou(masks: Tensor) -> Tensor:
    """(n, n) float in [0, 1]: intersection over union of (n, H, W) bool masks; 0 between empty ones."""
    flat = masks.flatten(1).float()
    inter = flat @ flat.T
    areas = flat.sum(1)
    union = areas[:, None] + areas - inter
    return inter / union.clamp(min=1)


def _binary(kernels: Tensor, features: Tensor) -> Iterator[Tensor]:
    for chunk in probabilities(kernels, features):
        yield chunk > HALF


def _near(inside: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(n,) bool: whether (n, H, W) masks have one of the 3 x 3 cells around (rows, columns)."""
    _, H, W = inside.shape
    steps = torch.arange(-1, 2, device=inside.device)
    r = (rows[:, None, None] + steps[:, None]).clamp(0, H - 1)
    c = (columns[:, None, None] + steps).clamp(0, W - 1)
    return inside[torch.arange(len(inside), device=inside.device)[:, None, None], r, c].flatten(1).any(1)
