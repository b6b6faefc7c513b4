"""What travels between the network, the losses and the inference of `vtk segment`.

Inside the network coordinates are pixels of the padded, resized image; `Instances` and `PointPrompt` are in pixels of
the upright original image, (0, 0) the centre of its top left pixel. A label is a contiguous class index from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class LevelOutput:
    """What the heads predict on one level of the pyramid.

    Args:
        category: (B, K, S, S) class logits of the cells of an S x S grid over the padded image.
        kernels: (B, E, S, S) the weights with which a cell reads its mask from the mask features.
    """

    category: Tensor
    kernels: Tensor


@dataclass(frozen=True)
class Outputs:
    """What the network gives for a batch.

    Args:
        levels: the finest grid first.
        mask_features: (B, E, H / 4, W / 4), H and W of the padded image; (B, E, H / 2, W / 2) of the micro network.
    """

    levels: tuple[LevelOutput, ...]
    mask_features: Tensor

    def of_image(self, index: int) -> Outputs:
        """The outputs of one image of the batch, as a batch of 1."""
        part = slice(index, index + 1)
        levels = tuple(LevelOutput(level.category[part], level.kernels[part]) for level in self.levels)
        return Outputs(levels, self.mask_features[part])

    def float(self) -> Outputs:
        """The same in float32, for losses and masks that half precision would spoil."""
        levels = tuple(LevelOutput(level.category.float(), level.kernels.float()) for level in self.levels)
        return Outputs(levels, self.mask_features.float())


@dataclass(frozen=True)
class Frame:
    """How an image lies in the padded batch.

    Args:
        original: height and width of the upright image.
        resized: height and width it has in the batch, at the top left of the padded canvas.
        padded: height and width of the canvas: multiples of the network's coarsest stride.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]


@dataclass(frozen=True)
class Target:
    """The n objects of one image, as the network is to find them.

    Args:
        labels: (n,) int64 in [0, K).
        masks: (n, H, W) bool at the size of the augmented image, without padding.
        boxes: (n, 4) xyxy in pixels of the augmented image, as its augmentation left the annotated boxes.
    """

    labels: Tensor
    masks: Tensor
    boxes: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Target:
        """The same target with its tensors on `device`."""
        moved = (part.to(device, non_blocking=non_blocking) for part in (self.labels, self.masks, self.boxes))
        return Target(*moved)


@dataclass(frozen=True)
class Instances:
    """n objects of one image, the best score first.

    Args:
        scores: (n,) float in [0, 1].
        labels: (n,) int64 in [0, K).
        masks: (n, H, W) bool at the size of the upright image.
        boxes: (n, 4) float xyxy, the tight boxes of the masks: x2 and y2 are the last pixel + 1; 0 of an empty mask.
    """

    scores: Tensor
    labels: Tensor
    masks: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of_masks(cls, scores: Tensor, labels: Tensor, masks: Tensor) -> Instances:
        """Instances with the tight boxes of their masks."""
        return cls(scores, labels, masks, tight_boxes(masks))

    def select(self, kept: Tensor) -> Instances:
        """Those of `kept`: indices (m,) or bool (n,)."""
        return Instances(self.scores[kept], self.labels[kept], self.masks[kept], self.boxes[kept])

    def cpu(self) -> Instances:
        """The same on the CPU."""
        return Instances(self.scores.cpu(), self.labels.cpu(), self.masks.cpu(), self.boxes.cpu())

    def certain(self) -> Instances:
        """The same with all scores 1: average precision then measures the masks and their labels alone."""
        return replace(self, scores=torch.ones_like(self.scores))


@dataclass(frozen=True)
class PointPrompt:
    """A click on an object.

    Args:
        x, y: pixels of the upright image; (0, 0) is the centre of its top left pixel.
        label: the object's class in [0, K).
        image_id: of the data file.
    """

    x: float
    y: float
    label: int
    image_id: int


def tight_boxes(masks: Tensor) -> Tensor:
    """(n, 4) float xyxy around (n, H, W) bool masks, the far sides exclusive; zeros around an empty mask."""
    rows, columns = masks.any(2), masks.any(1)
    first = [columns.byte().argmax(1), rows.byte().argmax(1)]
    last = [side.shape[1] - side.flip(1).byte().argmax(1) for side in (columns, rows)]
    return torch.stack([*first, *last], 1).float() * rows.any(1, keepdim=True)


def as_points(prompts: Sequence[PointPrompt], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Clicks as tensors: (P, 2) float64 x, y and (P,) int64 labels."""
    points = torch.tensor([(prompt.x, prompt.y) for prompt in prompts], dtype=torch.float64, device=device)
    labels = torch.tensor([prompt.label for prompt in prompts], dtype=torch.int64, device=device)
    return points.reshape(-1, 2), labels
