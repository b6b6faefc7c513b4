"""Which query answers for which object: the assignment of least cost (arXiv 2005.12872, Section 3.1).

The cost of a query for an object is 2 class + 5 L1 + 2 (-GIoU). All levels and images are solved on the host after one
copy from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from vtk_cli.detect.predictions import Target

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
_NOT_FINITE = -1e6
"""The cost of a prediction that is not finite: it is matched first, so that the loss is not finite either."""

ClassCost = Callable[[Tensor], Tensor]
"""Logits (..., K) to what it costs to answer for an object of each class."""


@dataclass(frozen=True)
class Objects:
    """The N objects of a batch of B images, image after image.

    Args:
        labels: (N,) int64.
        boxes: (N, 4) cxcywh in [0, 1].
        images: (N,) int64 in [0, B), the image of each.
        counts: how many there are in each image.
    """

    labels: Tensor
    boxes: Tensor
    images: Tensor
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Matches:
    """The M matched pairs of each of L levels: (L, M) int64 each.

    Args:
        images: in [0, B).
        queries: in [0, Q).
        objects: in [0, N).
    """

    images: Tensor
    queries: Tensor
    objects: Tensor

    def of(self, levels: Tensor) -> Tensor:
        """(L, M, ...): the matched queries' part of something (L, B, Q, ...)."""
        return levels[torch.arange(len(levels), device=levels.device)[:, None], self.images, self.queries]

    def level(self, index: int) -> Matches:
        """Those of one level: (1, M)."""
        return Matches(self.images[index][None], self.queries[index][None], self.objects[index][None])


@dataclass(frozen=True)
class CostWeights:
    """What each part of the cost counts."""

    classes: float = 2.0
    boxes: float = 5.0
    giou: float = 2.0


def objects_of(targets: Sequence[Target]) -> Objects:
    """The objects of a batch, on the device of the targets.

    Args:
        targets: of at least one image.
    """
    counts = tuple(len(target.labels) for target in targets)
    images = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = torch.cat([target.labels for target in targets])
    return Objects(labels, torch.cat([target.boxes for target in targets]), images.to(labels.device), counts)


def focal_class_cost(logits: Tensor) -> Tensor:
    """What the focal loss of an object's class would change by: its positive part less its negative one.

    0.25 (1 - p)^2 (-log(p + 1e-8)) - 0.75 p^2 (-log(1 - p + 1e-8)) with p the sigmoid (arXiv 2010.04159, Appendix).
    """
    p = logits.sigmoid()
    positive = FOCAL_ALPHA * (1 - p) ** FOCAL_GAMMA * -(p + 1e-8).log()
    negative = (1 - FOCAL_ALPHA) * p**FOCAL_GAMMA * -(1 - p + 1e-8).log()
    return positive - negative


def softmax_class_cost(logits: Tensor) -> Tensor:
    """-p with p the softmax over classes and "no object"."""
    return -logits.softmax(-1)


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, objects: Objects, class_cost: ClassCost, weights: CostWeights) -> Matches:
    """Every object's query, on each level by itself; of more objects than queries those that cost most go without.

    Args:
        logits: (L, B, Q, K).
        boxes: (L, B, Q, 4) cxcywh.
        objects: in the B images.
        class_cost: `focal_class_cost` or `softmax_class_cost`.
        weights: of the costs.
    """
    costs = _costs(logits, boxes, objects, class_cost, weights).cpu().numpy()  # the one wait for the device
    pairs = [_least_costs(level, objects.counts) for level in costs]
    queries, found = torch.from_numpy(np.stack(pairs, 1)).to(boxes.device)
    return Matches(objects.images[found], queries, found)


def _costs(logits: Tensor, boxes: Tensor, objects: Objects, class_cost: ClassCost, weights: CostWeights) -> Tensor:
    """(L, N, Q): of each object with each query of its image."""
    per_class = class_cost(logits).transpose(2, 3)  # (L, B, K, Q)
    classes = per_class[:, objects.images, objects.labels]
    predicted, wanted = boxes[:, objects.images], objects.boxes[:, None]  # (L, N, Q, 4), (N, 1, 4)
    giou = generalized_box_iou(box_convert(predicted, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy"))
    distance = (predicted - wanted).abs().sum(-1)
    cost = weights.classes * classes + weights.boxes * distance - weights.giou * giou[..., 0]
    return torch.where(cost.isfinite(), cost, _NOT_FINITE)


def _least_costs(costs: npt.NDArray[np.floating[Any]], counts: Sequence[int]) -> npt.NDArray[np.int64]:
    """(2, M) queries and objects of one level's costs (N, Q)."""
    pairs, first = [np.zeros((2, 0), np.int64)], 0
    for count in counts:
        rows, queries = linear_sum_assignment(costs[first : first + count])
        pairs.append(np.stack((queries, rows + first)))
        first += count
    return np.concatenate(pairs, 1)
