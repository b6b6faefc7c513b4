"""Dense supervision of the patches: each cell of the maps predicts the classes that it shows.

arXiv 2204.07962, Section 4.3. A cell's target is, for each class, the share of its pixels that the class covers;
channel 0 is "any object". Where objects overlap, a pixel belongs to the one that is annotated first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from vtk_cli.detect.matcher import FOCAL_ALPHA, FOCAL_GAMMA
from vtk_cli.detect.predictions import Target

_CHUNK = 16
"""Objects that are read in float at a time."""


def token_targets(
    targets: Sequence[Target], extent: tuple[int, int], shapes: Sequence[tuple[int, int]], channels: int, offset: int
) -> tuple[Tensor, ...]:
    """What the cells of each level are to predict: (B, `channels`, H_l, W_l) in [0, 1].

    Args:
        targets: with masks.
        extent: height and width of the padded batch.
        shapes: (H_l, W_l) of the levels.
        channels: C.
        offset: class k is channel k + offset.

    Raises:
        ValueError: a target has no masks.
    """
    images = [_pooled(target, extent, shapes, channels, offset) for target in targets]
    return tuple(torch.stack(level) for level in zip(*images, strict=True))


def token_focal(logits: Tensor, wanted: Tensor, boxes: Tensor) -> Tensor:
    """The focal loss of a level: mean over cells, sum over channels and images, / boxes.

    Args:
        logits, wanted: (B, C, H_l, W_l).
        boxes: scalar; see `losses`.
    """
    loss: Tensor = sigmoid_focal_loss(logits, wanted, FOCAL_ALPHA, FOCAL_GAMMA)
    return loss.mean((2, 3)).sum() / boxes


def token_dice(logits: Tensor, wanted: Tensor, boxes: Tensor) -> Tensor:
    """The Dice loss of a level: 1 - (2 sum p y + 1) / (sum p + sum y + 1) of each image, summed, / boxes.

    Args:
        logits, wanted: (B, C, H_l, W_l); the sums are over cells and channels.
        boxes: scalar; see `losses`.
    """
    p, y = logits.sigmoid().flatten(1), wanted.flatten(1)
    return (1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)).sum() / boxes


def _pooled(
    target: Target, extent: tuple[int, int], shapes: Sequence[tuple[int, int]], channels: int, offset: int
) -> list[Tensor]:
    """Each level's (C, H_l, W_l) of one image. Pooling is linear: each object is pooled by itself, then summed."""
    masks = target.masks
    if masks is None:
        raise ValueError(f"image {target.image_id} has no masks to label tokens with")
    levels = [torch.zeros(channels, *shape, device=masks.device) for shape in shapes]
    owner = _owners(masks)
    below_right = (0, extent[1] - masks.shape[2], 0, extent[0] - masks.shape[1])
    for first in range(0, len(masks), _CHUNK):
        labels = target.labels[first : first + _CHUNK]
        numbers = torch.arange(first, first + len(labels), device=masks.device)
        own = F.pad((owner == numbers[:, None, None]).float(), below_right)
        for level, shape in zip(levels, shapes, strict=True):
            shares = F.adaptive_avg_pool2d(own[:, None], shape)[:, 0]
            level.index_add_(0, labels + offset, shares)
            level[0] += shares.sum(0)
    return levels


def _owners(masks: Tensor) -> Tensor:
    """(H, W): the number of the first of n masks (n, H, W) that holds the pixel; n where none does."""
    n = len(masks)
    numbers = torch.arange(n + 1, dtype=torch.int16, device=masks.device)
    everywhere = F.pad(masks, (0, 0, 0, 0, 0, 1), value=True)
    return torch.where(everywhere, numbers[:, None, None], numbers[n]).amin(0)
