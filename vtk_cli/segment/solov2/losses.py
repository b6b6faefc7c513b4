"""The losses of SOLOv2 (arXiv 2003.10152, Section 3.3): dice of the masks and focal of the categories, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.whole_batch import summed
from vtk_cli.segment.solov2.masks import mask_logits
from vtk_cli.segment.solov2.predictions import LevelOutput, Outputs
from vtk_cli.segment.solov2.targets import BACKGROUND, ImageTargets, LevelTargets

MASK_WEIGHT = 3.0
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
EPSILON = 1e-3
"""Added to both squared sums of the dice loss, so that it and its gradient exist for empty masks."""


@dataclass(frozen=True)
class Losses:
    """Of a batch.

    The masks and cells that are divided by are those of all processes, shared out: the mean of the processes' losses is
    the loss of one with all images, and so is the mean of their gradients.

    Args:
        mask: scalar: 3 times the mean dice loss of all masks of cells of all levels and images; 0 without any.
        category: scalar: the focal loss of all cells and classes / (1 + cells with an object).
    """

    mask: Tensor
    category: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.mask + self.category


def solo_losses(outputs: Outputs, targets: Sequence[ImageTargets], world: World | None = None) -> Losses:
    """The losses of a batch.

    Args:
        outputs: of the network.
        targets: image by image, from `assign`.
        world: this process among the others, which must call it together; None: it is alone.
    """
    size = 1 if world is None else world.size
    with torch.autocast(outputs.mask_features.device.type, enabled=False):
        outputs = outputs.float()
        dice = torch.cat([_image_dice(outputs.of_image(index), each) for index, each in enumerate(targets)])
        category, cells = _category_loss(outputs.levels, targets)
        masks, positive = summed(torch.stack([cells.new_tensor(len(dice)), cells]).to(category.dtype), world).unbind()
        if len(dice):
            mask = MASK_WEIGHT * dice.sum() / (masks / size)
        else:  # every parameter still gets its gradient, which processes that train together wait for
            unused = [outputs.mask_features, *(level.kernels for level in outputs.levels)]
            mask = torch.stack([each.sum() * 0 for each in unused]).sum()
        return Losses(mask, category / ((positive + 1) / size))


def dice_losses(predicted: Tensor, wanted: Tensor) -> Tensor:
    """(n,): 1 - 2 sum(p g) / (sum(p^2) + 1e-3 + sum(g^2) + 1e-3), sums over all pixels.

    Args:
        predicted: (n, H, W) in [0, 1].
        wanted: (n, H, W) bool.
    """
    p, g = predicted.flatten(1), wanted.flatten(1).to(predicted.dtype)
    return 1 - 2 * (p * g).sum(1) / (p.square().sum(1) + g.square().sum(1) + 2 * EPSILON)


def focal_loss(logits: Tensor, category: Tensor, ignored: Tensor | None = None) -> Tensor:
    """The sigmoid focal loss (arXiv 1708.02002) of all cells and classes, alpha 0.25, gamma 2, summed.

    Args:
        logits: (B, K, S, S).
        category: (B, S, S) int64 labels, `BACKGROUND` where no class is right.
        ignored: (B, S, S) bool, cells that do not count.
    """
    K = logits.shape[1]
    wanted = F.one_hot(category - BACKGROUND, K + 1)[..., 1:].movedim(-1, 1)
    loss: Tensor = sigmoid_focal_loss(logits, wanted.to(logits.dtype), FOCAL_ALPHA, FOCAL_GAMMA)
    return loss.sum() if ignored is None else loss.masked_fill(ignored[:, None], 0).sum()


def _image_dice(outputs: Outputs, targets: ImageTargets) -> Tensor:
    """(m,): of every mask of every cell of one image."""
    pairs = list(zip(outputs.levels, targets.levels, strict=True))
    kernels = torch.cat([level.kernels[0].flatten(1).T[wanted.cells] for level, wanted in pairs])
    objects = torch.cat([wanted.objects for _, wanted in pairs])
    predicted = mask_logits(kernels, outputs.mask_features[0]).sigmoid()
    return dice_losses(predicted, targets.masks[objects])


def _category_loss(levels: Sequence[LevelOutput], targets: Sequence[ImageTargets]) -> tuple[Tensor, Tensor]:
    """Two scalars: the focal loss of all levels, summed, and how many cells have an object."""
    losses, positive = [], []
    for index, level in enumerate(levels):
        wanted = [image.levels[index] for image in targets]
        category = torch.stack([each.category for each in wanted])
        losses.append(focal_loss(level.category, category, _ignored(wanted)))
        positive.append((category != BACKGROUND).sum())
    return torch.stack(losses).sum(), torch.stack(positive).sum()


def _ignored(targets: Sequence[LevelTargets]) -> Tensor | None:
    if all(each.ignored is None for each in targets):
        return None
    none = torch.zeros_like(targets[0].category, dtype=torch.bool)
    return torch.stack([none if each.ignored is None else each.ignored for each in targets])
