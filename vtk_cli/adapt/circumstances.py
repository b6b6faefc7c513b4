"""Where and how a stage computes, and what each derives from that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vtk_cli.adapt.sharing import Sharing
from vtk_cli.console import Console
from vtk_cli.engine.devices import Precision
from vtk_cli.engine.plan import Plan
from vtk_cli.engine.processes.batch_norm import ordinary_batch_norm, synchronise_batch_norm
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.seeds import sample_seed, seed_everything

SCORING_BATCH = 192
SOURCE_STAGE, LABELLED_STAGE, UNLABELLED_STAGE, JOINT_STAGE, NORM_STAGE = range(5)
"""Numbers that set the draws of the stages of a round apart."""


@dataclass(frozen=True, eq=False)
class Circumstances:
    """Where and how a stage computes.

    Args:
        device: where.
        seed: of the run.
        console: shows the progress.
        precision: of the forward pass.
        checkpoint_seconds: save when the last save is so long ago.
        checkpoint_steps: save after every so many updates as well; None: by the clock alone.
        skip_nonfinite: leave out so many updates of a stage whose loss or gradient is not finite.
        scoring_batch: images in a batch where nothing is learnt.
        world: this process among those that train together; None: it is alone.
        sync_bn: batch normalisation over all processes.
    """

    device: torch.device
    seed: int
    console: Console
    precision: Precision = "fp32"
    checkpoint_seconds: float = 300.0
    checkpoint_steps: int | None = None
    skip_nonfinite: int = 0
    scoring_batch: int = SCORING_BATCH
    world: World | None = None
    sync_bn: bool = False

    @property
    def processes(self) -> World:
        """This process among the others, or alone."""
        return self.world or World(0, 1, 0, self.device)

    @property
    def sharing(self) -> Sharing:
        """How a batch is shared that is normalised by itself."""
        return Sharing(self.world, 1 if self.sync_bn else 2)

    @contextmanager
    def normalised_together(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` is trained: where asked for, its batch normalisation is that of all processes."""
        if not self.sync_bn or self.processes.size == 1:
            yield
            return
        try:
            synchronise_batch_norm(model)
            yield
        finally:
            ordinary_batch_norm(model)

    def begin(self, round_number: int, stage: int) -> int:
        """The seed of a stage, from which the global generators start as well, whatever came before in this process."""
        seed = sample_seed(self.seed, round_number, stage)
        seed_everything(seed)
        return seed

    def plan(self, epochs: int) -> Plan:
        """Of a stage of so many epochs."""
        return Plan(
            epochs,
            precision=self.precision,
            checkpoint_seconds=self.checkpoint_seconds,
            checkpoint_steps=self.checkpoint_steps,
            skip_nonfinite=self.skip_nonfinite,
        )


def checkpoints(place: Path | None) -> Path | None:
    """Where a stage whose folder is `place` keeps its state."""
    return None if place is None else place / "checkpoints"
