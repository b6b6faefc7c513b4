"""From what the last level predicts to detections in pixels of the original images (arXiv 2110.03921; 2204.07962).

There is no suppression of overlapping boxes and no threshold: a detector with one query an object needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert

from vtk_cli.detect.heads import wide
from vtk_cli.detect.mask_code import above_half, decode_masks, paste_masks
from vtk_cli.detect.predictions import LevelOutput

MOST_DETECTIONS = 100
"""How many detections an image has at most, as COCO counts them."""


@dataclass(frozen=True)
class Detections:
    """What was found in one image, the surest first.

    Args:
        scores: (n,) float in [0, 1].
        labels: (n,) int64 in [0, K).
        boxes: (n, 4) xyxy in pixels of the upright original image; a box may reach out of it.
        queries: (n,) int64, the query that each comes from; one query may stand here with several labels.
        masks: (n, height, width) bool at the original size; None where none were asked for.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    queries: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def cpu(self) -> Detections:
        """The same in the memory of the host."""
        masks = None if self.masks is None else self.masks.cpu()
        return Detections(self.scores.cpu(), self.labels.cpu(), self.boxes.cpu(), self.queries.cpu(), masks)


@dataclass(frozen=True)
class Ranking:
    """The best (query, class) pairs of each image: scores, labels and queries, each (B, n), the surest first."""

    scores: Tensor
    labels: Tensor
    queries: Tensor


def sigmoid_ranking(logits: Tensor, most: int = MOST_DETECTIONS) -> Ranking:
    """The highest of all Q x K probabilities.

    Args:
        logits: (B, Q, K), one sigmoid a class.
        most: how many are kept, if there are so many.
    """
    probability = wide(logits).sigmoid().flatten(1)
    scores, index = probability.topk(min(most, probability.shape[1]), dim=1)
    return Ranking(scores, index % logits.shape[-1], index // logits.shape[-1])


def softmax_ranking(logits: Tensor, most: int = MOST_DETECTIONS) -> Ranking:
    """The likeliest class of each query, as the detector without a neck ranks them.

    Args:
        logits: (B, Q, K + 1), the last "no object".
        most: how many are kept, if there are so many.
    """
    probability, label = wide(logits).softmax(-1)[..., :-1].max(-1)
    scores, queries = probability.topk(min(most, probability.shape[1]), dim=1)
    return Ranking(scores, label.gather(1, queries), queries)


def detections(
    level: LevelOutput,
    ranking: Ranking,
    original_sizes: Sequence[tuple[int, int]],
    *,
    masks: bool = False,
    filled: Callable[[Tensor], Tensor] = above_half,
) -> list[Detections]:
    """The detections of each image at its original size.

    Args:
        level: the final prediction; its vectors are needed for masks.
        ranking: of its logits.
        original_sizes: height and width of each upright original image.
        masks: with the masks.
        filled: which pixels of a decoded mask belong to it: `above_half` or, as published, `above_midrange`.

    Raises:
        ValueError: masks are asked for of a prediction without them.
    """
    if masks and level.vectors is None:
        raise ValueError("the prediction holds no masks")
    chosen = ranking.queries[..., None]
    boxes = wide(box_convert(level.boxes, "cxcywh", "xyxy")).gather(1, chosen.expand(-1, -1, 4))
    sizes = torch.tensor([[width, height, width, height] for height, width in original_sizes], dtype=boxes.dtype)
    boxes = boxes * sizes.to(boxes.device)[:, None]
    found = []
    for index, size in enumerate(original_sizes):
        pasted = None
        if masks and level.vectors is not None:
            codes = level.vectors[index, ranking.queries[index]]
            pasted = paste_masks(filled(decode_masks(codes)), boxes[index], size)
        queries, labels, scores = (part[index] for part in (ranking.queries, ranking.labels, ranking.scores))
        found.append(Detections(scores, labels, boxes[index], queries, pasted))
    return found
