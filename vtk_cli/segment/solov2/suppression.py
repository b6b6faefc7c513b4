"""Suppression of duplicates: of neighbouring cells, by decay (matrix NMS, arXiv 2003.10152, Section 3.4), and greedy.

Masks are compared with those of their own class alone. Equal scores keep the order they come in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.segment.solov2.masks import pairwise_iou

GAUSSIAN_SIGMA = 2.0
MASK_IOU = 0.5
"""The most IoU that two masks of a class may have, where masks are suppressed greedily."""

Decay = Callable[[Tensor], Tensor]
"""How much of its score an object keeps beside a better one, for their IoU."""
Suppression = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From masks (n, H, W) bool, labels (n,) and descending scores (n,), their new scores; 0 of what is dropped."""


def point_nms(scores: Tensor) -> Tensor:
    """Scores (..., S, S) where none of the left, upper and upper left neighbours is greater; 0 elsewhere."""
    best = F.max_pool2d(scores, kernel_size=2, stride=1, padding=1)[..., :-1, :-1]
    return scores * (best == scores)


def gaussian_decay(iou: Tensor) -> Tensor:
    """exp(-2 IoU^2)."""
    return torch.exp(-GAUSSIAN_SIGMA * iou.square())


def linear_decay(iou: Tensor) -> Tensor:
    """1 - IoU."""
    return 1 - iou


def matrix_nms(masks: Tensor, labels: Tensor, scores: Tensor, decay: Decay = gaussian_decay) -> Tensor:
    """(n,): the scores after matrix NMS: min over better i of decay(IoU_ij) / decay(max over better k of IoU_ki).

    Args:
        masks: (n, H, W) bool, the best score first.
        labels: (n,) int64.
        scores: (n,), descending.
        decay: of an IoU.
    """
    if not len(masks):
        return scores
    return scores * matrix_factors(_same_class_iou(masks, labels), decay)


def matrix_factors(iou: Tensor, decay: Decay = gaussian_decay) -> Tensor:
    """(..., n): what matrix NMS multiplies scores with, of the IoU (..., n, n) of masks, the best first.

    The IoU of masks of two classes is to be 0.
    """
    iou = iou.triu(1)
    compensation = iou.amax(-2)
    # The linear decay of a complete duplicate is 0: what it would take from others, its better double takes as well.
    rivals = decay(iou) / decay(compensation)[..., None].clamp(min=torch.finfo(iou.dtype).tiny)
    return rivals.amin(-2)


def greedy_nms(masks: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """(n,): the scores, 0 of those that `mask_nms` drops for an IoU above `MASK_IOU`."""
    return scores * mask_nms(masks, labels, scores, MASK_IOU)


def mask_nms(masks: Tensor, labels: Tensor, scores: Tensor, most_iou: float) -> Tensor:
    """(n,) bool: which masks stay. Best first, each one does that overlaps none that stays by more than the most.

    Args:
        masks: (n, H, W) bool.
        labels: (n,) int64.
        scores: (n,).
        most_iou: that two staying masks may have, in [0, 1].
    """
    order = torch.argsort(scores, descending=True, stable=True)
    overlaps = (_same_class_iou(masks, labels) > most_iou).cpu().numpy()
    stays = np.zeros(len(masks), np.bool_)
    for index in order.tolist():
        stays[index] = not (overlaps[index] & stays).any()
    return torch.from_numpy(stays).to(masks.device)


def _same_class_iou(masks: Tensor, labels: Tensor) -> Tensor:
    return pairwise_iou(masks) * (labels[:, None] == labels)
