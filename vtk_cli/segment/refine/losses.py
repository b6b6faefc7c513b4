"""The losses of the MaskRefineNet: soft Dice on a softmax of two (arXiv 2303.15062, Section 3.3).

Their sums are over the batch of all processes, which the loss of a part of it would not tell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.whole_batch import summed

EPSILON = 1e-7


def soft_dice_loss(logits: Tensor, targets: Tensor, world: World | None = None) -> Tensor:
    """The mean over background and object of 1 - 2 sum(p t) / (sum(p + t) + 1e-7), sums over batch, rows and columns.

    Args:
        logits: (B, 2, H, W).
        targets: bool (B, H, W), the object.
        world: this process among the others, which must call it together; None: it is alone.

    Returns:
        A scalar in float32, in [0, 1].
    """
    return _dice(logits, targets, (0, 2, 3), world)


def column_dice_loss(logits: Tensor, targets: Tensor, world: World | None = None) -> Tensor:
    """As `soft_dice_loss`, but a Dice for each column, with sums over batch and rows, as the published code has it."""
    return _dice(logits, targets, (0, 2), world)


def _dice(logits: Tensor, targets: Tensor, dims: tuple[int, ...], world: World | None) -> Tensor:
    shares = logits.float().softmax(dim=1)
    truth = torch.stack([~targets, targets], dim=1).to(shares.dtype)
    common, total = summed(torch.stack([(shares * truth).sum(dims), (shares + truth).sum(dims)]), world).unbind()
    loss: Tensor = (1 - 2 * common / (total + EPSILON)).mean()
    return loss
