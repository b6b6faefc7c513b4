"""Options that commands which train share."""

from __future__ import annotations

from dataclasses import dataclass

from vtk_cli.options import RunOptions, SpeechOptions, option


@dataclass(frozen=True, kw_only=True)
class FaultOptions(SpeechOptions):
    """What a training survives."""

    skip_nonfinite: int | None = option(
        None,
        "Leave out up to N updates of a training whose loss or gradient is NaN or infinite, with a warning [default: 0,"
        " the first one ends it]. Above 0 every update waits for the device.",
        panel="Run",
        metavar="N",
        minimum=0,
    )


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
