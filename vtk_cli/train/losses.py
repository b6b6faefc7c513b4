"""The losses of AugSub (arXiv 2306.11339) and of learning with annotation byproducts (arXiv 2303.17595).

All are means over the batch, computed in float32 whatever the autocast (float64 for float64).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossKind = Literal["ce", "bce"]


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """`-mean_b sum_c target log softmax(logits)`.

    Args:
        logits: (B, C).
        target: (B, C) in [0, 1], dense: one-hot, mixed, smoothed or a model's own probabilities.
    """
    return -(_full(target) * _full(logits).log_softmax(dim=1)).sum(dim=1).mean()


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy with logits, the mean over samples and classes.

    Args:
        logits: (B, C).
        target: (B, C) in [0, 1].
    """
    return F.binary_cross_entropy_with_logits(_full(logits), _full(target))


def criterion(logits: Tensor, target: Tensor, kind: LossKind) -> Tensor:
    """`soft_cross_entropy` for `ce`, `binary_cross_entropy` for `bce`."""
    return soft_cross_entropy(logits, target) if kind == "ce" else binary_cross_entropy(logits, target)


def relaxed_target(logits: Tensor, kind: LossKind) -> Tensor:
    """The model's own prediction as the target of its sub-model: no gradient flows through it.

    Args:
        logits: (B, C), the main forward's.
        kind: `ce`: softmax over the classes; `bce`: elementwise sigmoid.

    Returns:
        (B, C) float32.
    """
    own = _full(logits.detach())
    return own.softmax(dim=1) if kind == "ce" else own.sigmoid()


def point_loss(
    predicted: Tensor,
    points: Tensor,
    present: Tensor,
    beta: float = 1.0,
    *,
    share: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """The byproduct regression R: `sum(present * smoothL1(predicted - points)) / max(1, sum(present))`.

    The two coordinates of a point are summed. Where nothing is present the loss is 0 and so is its gradient.

    Args:
        predicted, points: (B, P, 2), in fractions of the image, x and y.
        present: (B, P) bool or of zeros and ones.
        beta: where smoothL1 turns from quadratic to linear, above 0.
        share: (B,) in [0, 1], the coefficient with which each sample's term counts after mixing; 1 if None.
        count: what the sum is divided by, where it is not this batch's `max(1, sum(present))`.
    """
    distance = F.smooth_l1_loss(_full(predicted), _full(points), reduction="none", beta=beta).sum(dim=-1)
    weight = present.to(distance.dtype)
    terms = weight * distance
    if share is not None:
        terms = terms * share.to(distance.dtype)[:, None]
    return terms.sum() / (weight.sum().clamp(min=1) if count is None else count)


def _full(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
