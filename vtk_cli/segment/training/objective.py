"""The loss of SOLOv2 as the engine's loop asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vtk_cli.engine.loop import Clock
from vtk_cli.engine.processes.distributed import World
from vtk_cli.segment.solov2.configurations import SegmenterConfig
from vtk_cli.segment.solov2.losses import solo_losses
from vtk_cli.segment.solov2.predictions import Target
from vtk_cli.segment.solov2.targets import ImageTargets, assign, ignore_around, one_mask_a_cell
from vtk_cli.segment.training.samples import Batch

SharedCells = Callable[[ImageTargets], ImageTargets]
"""What becomes of cells that several objects have."""


def as_published(targets: ImageTargets) -> ImageTargets:
    """A cell of several objects learns all their masks, as in the published code."""
    return targets


@dataclass(frozen=True)
class SegmentObjective:
    """The loss.

    Args:
        config: of the network.
        shared: `one_mask_a_cell`, or `as_published`.
        world: this process among the others; None: it is alone.
    """

    config: SegmenterConfig
    shared: SharedCells = one_mask_a_cell
    world: World | None = None

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:  # noqa: ARG002
        """The loss of (indices, batch)."""
        images: Batch = batch[1]
        outputs = model(images.images)
        height, width = images.images.shape[2:]
        canvas = (int(height), int(width))
        pairs = zip(images.targets, images.lost, strict=True)
        wanted = [self._targets(target, lost, canvas) for target, lost in pairs]
        return solo_losses(outputs, wanted, self.world).total

    def _targets(self, target: Target, lost: Tensor, canvas: tuple[int, int]) -> ImageTargets:
        config = self.config
        targets = self.shared(assign(target, config.levels, config.sigma, canvas, config.mask_stride))
        return ignore_around(targets, lost, canvas) if len(lost) else targets
