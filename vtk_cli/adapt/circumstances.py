"""Where and how a stage computes, and what each derives from that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vtk_cli.console import Console
from vtk_cli.engine.devices import Precision
from vtk_cli.engine.plan import Plan
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
        scoring_batch: images in a batch where nothing is learnt.
    """

    device: torch.device
    seed: int
    console: Console
    precision: Precision = "fp32"
    checkpoint_seconds: float = 300.0
    checkpoint_steps: int | None = None
    scoring_batch: int = SCORING_BATCH

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
        )


def checkpoints(place: Path | None) -> Path | None:
    """Where a stage whose folder is `place` keeps its state."""
    return None if place is None else place / "checkpoints"
