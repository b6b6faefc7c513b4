"""What travels between the network, the losses and the evaluation of a detector.

Inside the network and the losses a box is (cx, cy, w, h) in [0, 1] of the unpadded, resized image; a label is a
contiguous class index from 0. Data files and results hold (x1, y1, x2, y2) in pixels of the upright original image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PaddedImages:
    """A batch of images, zero-padded at the right and the bottom to one size.

    Args:
        images: (B, 3, H, W) float, normalised; 0 where padded.
        mask: (B, H, W) bool, True = padding.
        sizes: (B, 2) int64, height and width of each image without its padding.
    """

    images: Tensor
    mask: Tensor
    sizes: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> PaddedImages:
        """The same batch on `device`."""
        moved = (part.to(device, non_blocking=non_blocking) for part in (self.images, self.mask, self.sizes))
        return PaddedImages(*moved)


@dataclass(frozen=True)
class Target:
    """What is to be found in one image.

    Args:
        labels: (n,) int64 in [0, K).
        boxes: (n, 4) cxcywh in [0, 1] of the unpadded image.
        masks: (n, H, W) bool at the size of the unpadded resized image, (H, W) = `size`; None where none are used.
        area: (n,) float, in pixels of the original image.
        crowd: (n,) bool.
        image_id: of the data file.
        original_size: height and width of the upright original image.
        size: height and width of the unpadded resized image.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor | None
    area: Tensor
    crowd: Tensor
    image_id: int
    original_size: tuple[int, int]
    size: tuple[int, int]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Target:
        """The same target with its tensors on `device`."""
        names = [name for name in ("labels", "boxes", "masks", "area", "crowd") if getattr(self, name) is not None]
        moved: dict[str, Any] = {name: getattr(self, name).to(device, non_blocking=non_blocking) for name in names}
        return replace(self, **moved)


@dataclass(frozen=True)
class LevelOutput:
    """What one set of heads predicts from its Q tokens.

    Args:
        logits: (B, Q, K), one sigmoid a class. The network without a neck gives (B, Q, K + 1) softmax logits instead,
            its last column "no object".
        boxes: (B, Q, 4) cxcywh in [0, 1] of the unpadded image.
        iou_logits: (B, Q), sigmoid = IoU with the object; None without the IoU head.
        vectors: (B, Q, n) mask codes, n = 256; None without the mask head.
    """

    logits: Tensor
    boxes: Tensor
    iou_logits: Tensor | None = None
    vectors: Tensor | None = None


@dataclass(frozen=True)
class DistillationTokens:
    """The tokens that a student matches with its teacher's, one to one.

    Args:
        patches: for each of the decoder's levels (B, H_l * W_l, D), as projected for the decoder.
        body: (B, Q, D), the DET tokens as projected for the decoder.
        decoder: (1 + layers, B, Q, D), the tokens of all levels of heads; [0] is `body`.
    """

    patches: tuple[Tensor, ...]
    body: Tensor
    decoder: Tensor


@dataclass(frozen=True)
class Outputs:
    """What the network gives for a batch.

    Args:
        levels: the body's prediction first, the last decoder layer's (the final one) last. Without auxiliary outputs
            the final one alone.
        token_logits: for each of the decoder's levels, in its order, (B, C, H_l, W_l) class logits of its cells, with
            channel 0 "any object" and class k in channel k + `DetectorConfig.token_offset`; None without the token
            head, and where nothing is to be learned.
        distil: the tokens to distil; None without a neck, and where nothing is to be learned.
    """

    levels: tuple[LevelOutput, ...]
    token_logits: tuple[Tensor, ...] | None = None
    distil: DistillationTokens | None = None

    @property
    def final(self) -> LevelOutput:
        """The prediction of the last level."""
        return self.levels[-1]
