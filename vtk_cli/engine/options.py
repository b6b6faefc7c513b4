"""Options that commands which train share."""

from __future__ import annotations

from dataclasses import dataclass

from vtk_cli.options import RunOptions, option


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RunOptions):
    """How long to train, and how often to save."""

    epochs: int | None = option(
        None,
        "Passes over the training data [default: by architecture].",
        panel="Training",
        metavar="N",
        minimum=1,
    )
    checkpoint_seconds: float = option(
        120.0, "Save the state of a training so often.", panel="Training", metavar="S", minimum=0
    )
