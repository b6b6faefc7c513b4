"""How to train, and what comes out: what goes into the loop and what it returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vtk_cli.engine.devices import Precision
from vtk_cli.engine.metrics import Row
from vtk_cli.errors import UserError


@dataclass(frozen=True)
class Plan:
    """How to train.

    Args:
        epochs: passes over the data.
        accumulate: batches whose gradients make one update; weighted by their samples, so that the update is that of
            one batch as large as all of them (but for batch normalisation).
        clip_norm: the gradient's largest 2-norm; None leaves it.
        ema_decay: decay of the exponential moving average of the weights; None keeps none.
        precision: of the forward pass.
        checkpoint_steps: save after every so many updates; None leaves it to the clock.
        checkpoint_seconds: save when the last save is so long ago.
        evaluate_epochs: evaluate after every so many epochs, and after the last.
        skip_nonfinite: leave out so many updates whose loss or gradient is not finite, in all sittings together; the
            next one ends the training. 0: the first does, and the error names the option; None: it does, and there is
            no option. Above 0 every update waits for the device.
        log_steps: write the mean loss of every so many updates to `metrics`, besides the row of every epoch.

    Raises:
        UserError: a value is out of range.
    """

    epochs: int
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    precision: Precision = "fp32"
    checkpoint_steps: int | None = None
    checkpoint_seconds: float = 120.0
    evaluate_epochs: int = 1
    log_steps: int | None = None
    skip_nonfinite: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "checkpoint_steps", "evaluate_epochs", "log_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        if self.skip_nonfinite is not None and self.skip_nonfinite < 0:
            raise UserError(f"skip_nonfinite must be at least 0, not {self.skip_nonfinite}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UserError(f"clip_norm must be above 0, not {self.clip_norm}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay must be in [0, 1), not {self.ema_decay}")


@dataclass(frozen=True)
class FitResult:
    """What came out.

    Args:
        model: the trained model: the object that was given.
        ema: the model with averaged weights, if the plan asked for it.
        steps: updates made, in all sittings together.
        metrics: the last epoch's row.
        history: every row of `metrics.jsonl`.
        images_per_second: samples a second over all processes in this sitting, evaluation and saving left out; None
            where there was no update left to make.
        train_seconds: seconds in updates in this sitting.
    """

    model: nn.Module
    ema: nn.Module | None
    steps: int
    metrics: Row
    history: tuple[Row, ...]
    images_per_second: float | None
    train_seconds: float
