"""What a detector learns from: the losses of all levels, each matched by itself, and those of patches and teacher.

ViDT: focal, L1 and GIoU, and the distance to a teacher's tokens (arXiv 2110.03921, Section 3.3). ViDT+: mask codes, the
boxes' IoU and token labels besides (arXiv 2204.07962, Section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchvision.ops import box_convert

from vtk_cli.detect.configurations import DetectorConfig
from vtk_cli.detect.distillation import rooted_token_distance, token_distance
from vtk_cli.detect.losses import (
    box_losses,
    class_error,
    code_loss,
    focal_class_loss,
    iou_aware_loss,
    softmax_class_loss,
)
from vtk_cli.detect.mask_code import crop_masks, encode_masks
from vtk_cli.detect.matcher import (
    CostWeights,
    Matches,
    Objects,
    focal_class_cost,
    match,
    objects_of,
    softmax_class_cost,
)
from vtk_cli.detect.predictions import DistillationTokens, Outputs, PaddedImages, Target
from vtk_cli.detect.token_labels import token_dice, token_focal, token_targets
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.whole_batch import summed
from vtk_cli.errors import UserError


@dataclass(frozen=True)
class LossWeights:
    """What each loss counts, as published.

    Args:
        classes, boxes, giou: of the matched queries' classes and boxes.
        iou: of the predicted IoU.
        codes: of the mask codes.
        token_focal, token_dice: of the cells' classes.
        distil: of the distance to the teacher's tokens.
    """

    classes: float = 2.0
    boxes: float = 5.0
    giou: float = 2.0
    iou: float = 2.0
    codes: float = 1.0
    token_focal: float = 2.0
    token_dice: float = 2.0
    distil: float = 4.0


NECK_FREE_WEIGHTS = LossWeights(classes=1.0)
"""The published weights of the detector without a neck."""


@dataclass(frozen=True)
class Losses:
    """The loss of a batch.

    Args:
        terms: by name, weighted and summed over the levels, scalars: `class`, `box`, `giou`, then those of `iou`,
            `code`, `token_focal`, `token_dice`, `distil` that there are.
        class_error: the share, in [0, 1], of the final level's matched queries with a wrong class; without gradient.
    """

    terms: dict[str, Tensor]
    class_error: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Criterion:
    """The losses of a `ViDT`.

    Args:
        config: of the detector.
        world: this process among the others.
        weights: of the losses.
        costs: of the matching.
        iou_target_grad: the IoU that is to be predicted passes its gradient to the boxes, as published.
        distil_root: the square root of the distance to the teacher's tokens is the loss, as published.
    """

    config: DetectorConfig
    world: World
    weights: LossWeights = field(default_factory=LossWeights)
    costs: CostWeights = field(default_factory=CostWeights)
    iou_target_grad: bool = True
    distil_root: bool = True

    def __call__(
        self,
        outputs: Outputs,
        targets: Sequence[Target],
        batch: PaddedImages,
        teacher: DistillationTokens | None = None,
    ) -> Losses:
        """The losses of a batch; computed in float32 under autocast too.

        Args:
            outputs: of the detector, made for losses.
            targets: of each image, without crowds; an image may have no objects. With masks where the detector has mask
                codes or token labels.
            batch: the images.
            teacher: the tokens to match; None without distillation.

        Raises:
            ValueError: a target has no masks where they are needed.
        """
        with torch.autocast(batch.images.device.type, enabled=False):
            return self._losses(outputs, targets, batch, teacher)

    def _losses(
        self, outputs: Outputs, targets: Sequence[Target], batch: PaddedImages, teacher: DistillationTokens | None
    ) -> Losses:
        objects, weights = objects_of(targets), self.weights
        logits = torch.stack([level.logits for level in outputs.levels])
        predicted = torch.stack([level.boxes for level in outputs.levels])
        matches = match(logits, predicted, objects, focal_class_cost, self.costs)
        boxes, matched = mean_counts(objects, matches, self.world)
        of_boxes = box_losses(predicted, objects, matches, boxes)
        terms = {
            "class": weights.classes * focal_class_loss(logits, objects, matches, boxes).sum(),
            "box": weights.boxes * of_boxes.l1.sum(),
            "giou": weights.giou * of_boxes.giou.sum(),
        }
        iou_logits = [level.iou_logits for level in outputs.levels if level.iou_logits is not None]
        if iou_logits:
            iou = of_boxes.iou if self.iou_target_grad else of_boxes.iou.detach()
            terms["iou"] = weights.iou * iou_aware_loss(torch.stack(iou_logits), iou, matches, boxes).sum()
        vectors = [level.vectors for level in outputs.levels if level.vectors is not None]
        if vectors:
            codes = mask_codes(targets, self.config.mask_coefficients)
            terms["code"] = weights.codes * code_loss(torch.stack(vectors), codes, matches, matched).sum()
        if outputs.token_logits is not None:
            focal, dice = self._of_tokens(outputs.token_logits, targets, batch, boxes)
            terms |= {"token_focal": weights.token_focal * focal, "token_dice": weights.token_dice * dice}
        if teacher is not None:
            terms["distil"] = weights.distil * self._to_teacher(outputs, teacher)
        return Losses(terms, class_error(logits[-1:].detach(), objects, matches.level(-1))[0])

    def _of_tokens(
        self, logits: Sequence[Tensor], targets: Sequence[Target], batch: PaddedImages, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows, columns = batch.mask.shape[1:]
        shapes = [(level.shape[-2], level.shape[-1]) for level in logits]
        config = self.config
        wanted = token_targets(targets, (rows, columns), shapes, config.token_channels, config.token_offset)
        pairs = [(level, to.to(level.dtype)) for level, to in zip(logits, wanted, strict=True)]
        losses = [torch.stack([loss(level, to, boxes) for level, to in pairs]) for loss in (token_focal, token_dice)]
        return losses[0].sum(), losses[1].sum()

    def _to_teacher(self, outputs: Outputs, teacher: DistillationTokens) -> Tensor:
        if outputs.distil is None:
            raise ValueError("the outputs were not made for losses: they hold no tokens to distil")
        if self.distil_root:
            return rooted_token_distance(outputs.distil, teacher, self.world)
        return token_distance(outputs.distil, teacher)


@dataclass(frozen=True)
class NeckFreeCriterion:
    """The losses of a `NeckFreeViDT`: DETR's, with a softmax over the classes and "no object" (arXiv 2005.12872).

    Args:
        world: this process among the others.
        weights: of the losses.
        costs: of the matching.
    """

    world: World
    weights: LossWeights = NECK_FREE_WEIGHTS
    costs: CostWeights = field(default_factory=CostWeights)

    def __call__(
        self,
        outputs: Outputs,
        targets: Sequence[Target],
        batch: PaddedImages,
        teacher: DistillationTokens | None = None,
    ) -> Losses:
        """The losses `class`, `box` and `giou` of a batch; see `Criterion`.

        Raises:
            UserError: there is a teacher.
        """
        if teacher is not None:
            raise UserError("a detector without a decoder cannot be distilled")
        with torch.autocast(batch.images.device.type, enabled=False):
            objects = objects_of(targets)
            logits, predicted = outputs.final.logits[None], outputs.final.boxes[None]
            matches = match(logits, predicted, objects, softmax_class_cost, self.costs)
            boxes, matched = mean_counts(objects, matches, self.world)
            of_boxes = box_losses(predicted, objects, matches, boxes)
            terms = {
                "class": self.weights.classes * softmax_class_loss(logits, objects, matches, matched).sum(),
                "box": self.weights.boxes * of_boxes.l1.sum(),
                "giou": self.weights.giou * of_boxes.giou.sum(),
            }
            return Losses(terms, class_error(logits.detach(), objects, matches)[0])


def mean_counts(objects: Objects, matches: Matches, world: World) -> tuple[Tensor, Tensor]:
    """Two scalars: how many objects, and how many matches of a level, a process has on average.

    Of objects, as if there were one where there is none in all processes together. All must call it together.
    """
    own = torch.tensor([len(objects.labels), matches.objects.shape[1]], dtype=torch.float32)
    boxes, matched = summed(own.to(objects.labels.device), world).unbind()
    return boxes.clamp(min=1) / world.size, matched / world.size


def mask_codes(targets: Sequence[Target], length: int) -> Tensor:
    """(N, length): the codes of all objects' masks, cut at their boxes.

    Args:
        targets: with masks.
        length: of a code.

    Raises:
        ValueError: a target has no masks.
    """
    codes = []
    for target in targets:
        if target.masks is None:
            raise ValueError(f"image {target.image_id} has no masks to learn")
        height, width = target.masks.shape[1:]
        corners = box_convert(target.boxes, "cxcywh", "xyxy")
        pixels = corners * corners.new_tensor((width, height, width, height))
        codes.append(encode_masks(crop_masks(target.masks, pixels), length))
    return torch.cat(codes)
