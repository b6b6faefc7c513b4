"""The loss of a batch as the engine's loop asks for it, and which of its terms is to blame where it is not finite."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from torch import Tensor, nn

from vtk_cli.detect.checkpoint import Detector
from vtk_cli.detect.configurations import DetectorConfig
from vtk_cli.detect.criterion import Criterion, LossWeights, NeckFreeCriterion
from vtk_cli.detect.distillation import check_teacher, teacher_tokens
from vtk_cli.detect.predictions import PaddedImages, Target
from vtk_cli.engine.loop import Clock
from vtk_cli.engine.processes.distributed import World

_REMEMBERED = 1024
"""Batches whose terms are kept; the loop looks at its losses more often than that."""


class Objective:
    """The loss.

    Args:
        config: of the detector.
        world: this process among the others.
        iou_target_grad: see `Criterion`.
        teacher: on the device, whose tokens are matched; None without distillation.
        distil_weight: what their distance counts.
        distil_root: see `Criterion`.

    Raises:
        UserError: the teacher's tokens cannot be matched.
    """

    def __init__(
        self,
        config: DetectorConfig,
        world: World,
        *,
        iou_target_grad: bool = True,
        teacher: Detector | None = None,
        distil_weight: float = 4.0,
        distil_root: bool = True,
    ) -> None:
        if teacher is not None:
            check_teacher(config, teacher.config)
            teacher.requires_grad_(requires_grad=False)
        self._teacher = teacher
        weights = LossWeights(distil=distil_weight)
        self._criterion = (
            NeckFreeCriterion(world)
            if config.neck == "none"
            else Criterion(config, world, weights, iou_target_grad=iou_target_grad, distil_root=distil_root)
        )
        self._recent: deque[tuple[int, list[int], dict[str, Tensor]]] = deque(maxlen=_REMEMBERED)

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:
        """The loss of (indices, images, targets)."""
        images: PaddedImages
        targets: tuple[Target, ...]
        _, images, targets = batch
        matched = None if self._teacher is None else teacher_tokens(self._teacher, images)
        losses = self._criterion(model(images), targets, images, matched)
        terms = {name: term.detach() for name, term in losses.terms.items()}
        self._recent.append((clock.step + 1, [target.image_id for target in targets], terms))
        return losses.total

    def blame(self) -> str:
        """Which terms of which batch were not finite, the first of the last such in a row; empty where all were."""
        blamed, is_sound = "", True
        for step, images, terms in self._recent:
            guilty = [name for name, term in terms.items() if not math.isfinite(float(term))]
            if guilty and is_sound:
                blamed = f"at step {step} {', '.join(guilty)} of images {', '.join(map(str, images))}"
            is_sound = not guilty
        return blamed
