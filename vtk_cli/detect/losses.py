"""The losses of the matched queries, each for all levels at once (arXiv 2010.04159; arXiv 2204.07962, Section 4).

Sums are divided by counts that a process has on average, `boxes` that of objects: then the mean of the processes'
gradients is the gradient of one process with all images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou, generalized_box_iou, sigmoid_focal_loss

from vtk_cli.detect.matcher import FOCAL_ALPHA, FOCAL_GAMMA, Matches, Objects

NO_OBJECT_WEIGHT = 0.1
"""What a query without an object counts in the cross-entropy, relative to one with."""


@dataclass(frozen=True)
class BoxLosses:
    """Of the matched boxes.

    Args:
        l1: (L,), the sum of |cx|, |cy|, |w|, |h| differences over the matches / boxes.
        giou: (L,), the sum of 1 - GIoU / boxes.
        iou: (L, M), the IoU of each match, with its gradient.
    """

    l1: Tensor
    giou: Tensor
    iou: Tensor


def focal_class_loss(logits: Tensor, objects: Objects, matches: Matches, boxes: Tensor) -> Tensor:
    """(L,): the sigmoid focal loss (arXiv 1708.02002) of all queries and classes, summed / boxes.

    Args:
        logits: (L, B, Q, K).
        objects, matches: a matched query is to predict its object's class, every other one none.
        boxes: scalar.
    """
    wanted = torch.zeros_like(logits)
    levels = torch.arange(len(logits), device=logits.device)[:, None]
    wanted[levels, matches.images, matches.queries, objects.labels[matches.objects]] = 1
    loss: Tensor = sigmoid_focal_loss(logits, wanted, FOCAL_ALPHA, FOCAL_GAMMA)
    return loss.sum((1, 2, 3)) / boxes


def softmax_class_loss(logits: Tensor, objects: Objects, matches: Matches, matched: Tensor) -> Tensor:
    """(L,): the weighted mean cross-entropy of all queries, "no object" counting 0.1 (arXiv 2005.12872, Section 3.1).

    Args:
        logits: (L, B, Q, K + 1), the last "no object"; equally many queries in all processes.
        objects, matches: see `focal_class_loss`.
        matched: scalar, the matches of a level that a process has on average.
    """
    nothing = logits.shape[-1] - 1
    wanted = torch.full(logits.shape[:-1], nothing, device=logits.device)
    levels = torch.arange(len(logits), device=logits.device)[:, None]
    wanted[levels, matches.images, matches.queries] = objects.labels[matches.objects]
    weights = logits.new_ones(nothing + 1)
    weights[nothing] = NO_OBJECT_WEIGHT
    whole = NO_OBJECT_WEIGHT * wanted[0].numel() + (1 - NO_OBJECT_WEIGHT) * matched
    costs = [
        F.cross_entropy(each.flatten(0, 1), to.flatten(), weights, reduction="sum")
        for each, to in zip(logits, wanted, strict=True)
    ]
    return torch.stack(costs) / whole


def box_losses(predicted: Tensor, objects: Objects, matches: Matches, boxes: Tensor) -> BoxLosses:
    """L1 and GIoU (arXiv 1902.09630) of the matched boxes.

    Args:
        predicted: (L, B, Q, 4) cxcywh.
        objects, matches: of the batch.
        boxes: scalar.
    """
    found, wanted = matches.of(predicted), objects.boxes[matches.objects].to(predicted.dtype)
    pair = [box_convert(each, "cxcywh", "xyxy")[..., None, :] for each in (found, wanted)]  # (L, M, 1, 4)
    giou, iou = generalized_box_iou(*pair)[..., 0, 0], box_iou(*pair)[..., 0, 0]
    l1 = F.l1_loss(found, wanted, reduction="none").sum((1, 2))
    return BoxLosses(l1 / boxes, (1 - giou).sum(1) / boxes, iou)


def iou_aware_loss(iou_logits: Tensor, iou: Tensor, matches: Matches, boxes: Tensor) -> Tensor:
    """(L,): the cross-entropy of the predicted IoU, summed over the matches / boxes (arXiv 2204.07962, Section 4.3).

    Args:
        iou_logits: (L, B, Q).
        iou: (L, M) in [0, 1]. If it has a gradient, the boxes get -u of it, u the logit.
        matches: of the batch.
        boxes: scalar.
    """
    found = matches.of(iou_logits)
    return F.binary_cross_entropy_with_logits(found, iou, reduction="none").sum(1) / boxes


def code_loss(vectors: Tensor, codes: Tensor, matches: Matches, matched: Tensor) -> Tensor:
    """(L,): 3 times the mean of |v - code| over the matches of all processes and their coefficients; 0 with no match.

    Args:
        vectors: (L, B, Q, n).
        codes: (N, n), of the objects' masks.
        matches: of the batch.
        matched: scalar, the matches of a level that a process has on average.
    """
    found = matches.of(vectors)
    distance = F.l1_loss(found, codes[matches.objects].to(found.dtype), reduction="none")
    return 3 * distance.sum((1, 2)) / torch.where(matched > 0, matched * vectors.shape[-1], 1)


def class_error(logits: Tensor, objects: Objects, matches: Matches) -> Tensor:
    """(L,): the share, in [0, 1], of the matched queries whose likeliest class is not their object's; 0 with no match.

    Args:
        logits: (L, B, Q, K).
        objects, matches: of the batch.
    """
    wrong = matches.of(logits).argmax(-1) != objects.labels[matches.objects]
    return wrong.sum(1) / max(1, wrong.shape[1])
