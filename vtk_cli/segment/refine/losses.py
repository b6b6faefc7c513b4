"""The losses of the MaskRefineNet: soft Dice on a softmax of two (arXiv 2303.15062, Section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7


def soft_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean over background and object of 1 - 2 sum(p t) / (sum(p + t) + 1e-7), sums over batch, rows and columns.

    Args:
        logits: (B, 2, H, W).
        targets: bool (B, H, W), the object.

    Returns:
        A scalar in float32, in [0, 1].
    """
    return _dice(logits, targets, (0, 2, 3))


def column_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """As `soft_dice_loss`, but a Dice for each column, with sums over batch and rows, as the published code has it."""
    return _dice(logits, targets, (0, 2))


def _dice(logits: Tensor, targets: Tensor, dims: tuple[int, ...]) -> Tensor:
    shares = logits.float().softmax(dim=1)
    truth = torch.stack([~targets, targets], dim=1).to(shares.dtype)
    common, total = (shares * truth).sum(dims), (shares + truth).sum(dims)
    loss: Tensor = (1 - 2 * common / (total + EPSILON)).mean()
    return loss
