"""Instances without clicks: of everything in the image, of the classes known to be there, or of known objects.

Normal inference is that of arXiv 2003.10152, Section 3.4. The images' outputs are judged one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtk_cli.segment.solov2.configurations import LevelConfig
from vtk_cli.segment.solov2.masks import binary_masks, image_masks, measure
from vtk_cli.segment.solov2.predictions import Frame, Instances, Outputs
from vtk_cli.segment.solov2.suppression import MASK_IOU, Suppression, mask_nms, matrix_nms, point_nms
from vtk_cli.segment.solov2.targets import BACKGROUND, ImageTargets


@dataclass(frozen=True)
class InferenceSettings:
    """How normal inference chooses.

    Args:
        least_category: a cell's class is a candidate above this probability.
        candidates: how many candidates are compared at most.
        suppress: `matrix_nms`, or `greedy_nms` as for the published teacher.
        least_score: an object stays with at least this score after it.
        most: objects an image has at most.
    """

    least_category: float = 0.1
    candidates: int = 500
    suppress: Suppression = matrix_nms
    least_score: float = 0.05
    most: int = 100


@dataclass(frozen=True)
class Candidates:
    """n cells with a class each.

    Args:
        kernels: (n, E).
        labels: (n,) int64.
        scores: (n,) float.
        least_areas: (n,) float: a mask of no more cells of the mask features is dropped.
    """

    kernels: Tensor
    labels: Tensor
    scores: Tensor
    least_areas: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, kept: Tensor) -> Candidates:
        """Those of `kept`: indices (m,) or bool (n,)."""
        return Candidates(self.kernels[kept], self.labels[kept], self.scores[kept], self.least_areas[kept])


@torch.no_grad()
def find_instances(
    outputs: Outputs,
    frame: Frame,
    levels: Sequence[LevelConfig],
    settings: InferenceSettings | None = None,
    present: Sequence[int] | None = None,
) -> Instances:
    """What the network finds in one image, the best first.

    Args:
        outputs: of one image, as a batch of 1.
        frame: of the image.
        levels: of the network.
        settings: None for the published ones.
        present: labels of the classes that the image is known to have; no other is found. None: any.
    """
    settings = settings or InferenceSettings()
    outputs = outputs.float()
    features = outputs.mask_features[0]
    found = _confident(outputs, levels, settings.least_category, present)
    measures = measure(found.kernels, features)
    scores = found.scores * measures.maskness
    large = measures.areas > found.least_areas
    order = _ranked(scores.masked_fill(~large, -1))[: settings.candidates]
    order = order[large[order]]
    found, scores = found.select(order), scores[order]
    scores = settings.suppress(binary_masks(found.kernels, features), found.labels, scores)
    order = _ranked(scores)[: settings.most]
    order = order[(scores[order] >= settings.least_score) & (scores[order] > 0)]
    masks = image_masks(found.kernels[order], features, frame)
    return Instances.of_masks(scores[order], found.labels[order], masks)


@torch.no_grad()
def masks_of_objects(
    outputs: Outputs, frame: Frame, levels: Sequence[LevelConfig], targets: ImageTargets, most: int = 100
) -> Instances:
    """The masks that the network makes of known objects: of every cell that is to predict one, on their own levels.

    The score of a mask is its mean probability inside. Of a class, no two masks stay that overlap by more than half.

    Args:
        outputs: of one image, as a batch of 1.
        frame: of the image.
        levels: of the network.
        targets: of the image, from `assign`, on the same canvas.
        most: instances at most.
    """
    outputs = outputs.float()
    features = outputs.mask_features[0]
    parts = []
    for level, output, wanted in zip(levels, outputs.levels, targets.levels, strict=True):
        cells = (wanted.category.flatten() != BACKGROUND).nonzero()[:, 0]
        parts.append(_of_cells(output.kernels[0], cells, wanted.category.flatten()[cells], level.stride))
    found = _joined(parts)
    measures = measure(found.kernels, features)
    large = measures.areas > found.least_areas
    found, scores = found.select(large), measures.maskness[large]
    stays = mask_nms(binary_masks(found.kernels, features), found.labels, scores, MASK_IOU)
    order = _ranked(scores.masked_fill(~stays, -1))[: min(most, int(stays.sum()))]
    masks = image_masks(found.kernels[order], features, frame)
    return Instances.of_masks(scores[order], found.labels[order], masks)


def _confident(
    outputs: Outputs, levels: Sequence[LevelConfig], least: float, present: Sequence[int] | None
) -> Candidates:
    """The cells and classes that point NMS leaves above the least probability."""
    parts = []
    for level, output in zip(levels, outputs.levels, strict=True):
        scores = point_nms(output.category[0].sigmoid()).flatten(1)  # (K, S * S)
        if present is not None:
            absent = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
            absent[torch.as_tensor(present, dtype=torch.int64, device=scores.device)] = False
            scores = scores.masked_fill(absent[:, None], 0)
        cells, labels = (least < scores.T).nonzero(as_tuple=True)
        parts.append(_of_cells(output.kernels[0], cells, labels, level.stride, scores[labels, cells]))
    return _joined(parts)


def _of_cells(kernels: Tensor, cells: Tensor, labels: Tensor, stride: int, scores: Tensor | None = None) -> Candidates:
    chosen = kernels.flatten(1).T[cells]
    sure = torch.ones(len(cells), device=kernels.device)
    return Candidates(chosen, labels, sure if scores is None else scores, sure * stride)


def _joined(parts: Sequence[Candidates]) -> Candidates:
    names = ("kernels", "labels", "scores", "least_areas")
    return Candidates(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _ranked(scores: Tensor) -> Tensor:
    return torch.argsort(scores, descending=True, stable=True)
