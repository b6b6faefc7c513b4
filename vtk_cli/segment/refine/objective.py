"""The loss of the MaskRefineNet as the engine's loop asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vtk_cli.engine.loop import Clock
from vtk_cli.engine.processes.distributed import World
from vtk_cli.segment.refine.configurations import RefineConfig
from vtk_cli.segment.refine.losses import soft_dice_loss
from vtk_cli.segment.refine.pairs import RefineBatch

Dice = Callable[[Tensor, Tensor, World | None], Tensor]
"""From logits (B, 2, S, S) and targets, bool (B, S, S), to a scalar, over all processes."""


@dataclass(frozen=True)
class RefineObjective:
    """The loss.

    Args:
        config: what crops are like.
        classes: C.
        dice: `soft_dice_loss`, or `column_dice_loss` as the published code has it.
        world: this process among the others; None: it is alone.
    """

    config: RefineConfig
    classes: int
    dice: Dice = soft_dice_loss
    world: World | None = None

    def __call__(self, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Tensor:  # noqa: ARG002
        """The loss of (indices, crops)."""
        crops: RefineBatch = batch[1]
        return self.dice(model(crops.inputs(self.config, self.classes)), crops.targets, self.world)
