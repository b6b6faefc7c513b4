"""The points of a dataset, sample by sample, as training uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PointTargets:
    """A point for each sample, or for each sample and class.

    Args:
        points: float32 (N, P, 2): x and y as fractions of the upright image, in [0, 1]; absent points hold 0.5.
            P is 1 for single-label data and the number of classes for multi-label data.
        present: bool (N, P).
        boxes: float32 (N, P, 4): left, top, right, bottom as fractions of the upright image: of the boxes of the
            sample (and class) the smallest that holds the point, else the largest; all 0 where there is none. None
            where the byproducts hold no boxes at all.
    """

    points: Tensor
    present: Tensor
    boxes: Tensor | None = None

    def __post_init__(self) -> None:
        count, per_sample, two = self.points.shape
        if two != 2 or self.present.shape != (count, per_sample):
            raise ValueError(f"points {tuple(self.points.shape)} and present {tuple(self.present.shape)} do not fit")
        if self.boxes is not None and self.boxes.shape != (count, per_sample, 4):
            raise ValueError(f"points {tuple(self.points.shape)} and boxes {tuple(self.boxes.shape)} do not fit")

    def __len__(self) -> int:
        return len(self.points)

    def subset(self, indices: Sequence[int]) -> PointTargets:
        """The samples at `indices`, in that order."""
        kept = torch.as_tensor(indices, dtype=torch.int64)
        boxes = None if self.boxes is None else self.boxes[kept]
        return PointTargets(self.points[kept], self.present[kept], boxes)
