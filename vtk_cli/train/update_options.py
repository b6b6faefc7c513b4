"""The options of `vtk train` that say how weights are updated: optimiser, schedule, arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vtk_cli.engine.options import FaultOptions
from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, option


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions(RunOptions):
    """The optimiser and its schedule."""

    epochs: int = option(100, "Passes over the training images.", panel="Optimisation", minimum=1)
    optimizer: str = option("adamw", "Any of timm's optimisers.", panel="Optimisation", metavar="NAME")
    lr: float = option(2e-3, "Learning rate.", panel="Optimisation", above=0)
    lr_base_size: int | None = option(
        None,
        "The learning rate is meant for so many images an update, and scaled to yours.",
        panel="Optimisation",
        metavar="N",
        minimum=1,
    )
    weight_decay: float = option(0.05, "Weight decay, on matrices.", panel="Optimisation", minimum=0)
    layer_decay: float | None = option(
        None,
        "Learning rate factor from a layer to the one before.",
        panel="Optimisation",
        metavar="X",
        above=0,
        maximum=1,
    )
    momentum: float = option(
        0.9, "Momentum, for optimisers that have one.", panel="Optimisation", minimum=0, maximum=0.9999
    )
    opt_eps: float | None = option(
        None, "Epsilon, for optimisers that have one.", panel="Optimisation", metavar="X", above=0
    )
    betas: tuple[float, ...] = option(
        (), "Betas, for optimisers that have them; give it twice.", panel="Optimisation", metavar="X"
    )
    schedule: str = option("cosine", "Any of timm's schedules.", panel="Optimisation", metavar="NAME")
    schedule_on: Literal["updates", "epochs"] = option(
        "updates", "The learning rate changes with every update, or every epoch.", panel="Optimisation"
    )
    warmup: str = option(
        "0", "Linear warm-up: epochs, or a share of the training as in 10%.", panel="Optimisation", metavar="N|P%"
    )
    warmup_lr: float = option(0.0, "Learning rate at the start of the warm-up.", panel="Optimisation", minimum=0)
    min_lr: float = option(0.0, "Learning rate at the end.", panel="Optimisation", minimum=0)
    cooldown_epochs: int = option(
        0, "Epochs at the end with the lowest learning rate.", panel="Optimisation", minimum=0
    )
    clip_norm: float | None = option(
        None, "Largest 2-norm of the gradient.", panel="Optimisation", metavar="X", above=0
    )
    accumulate: int = option(1, "Batches that make one update.", panel="Optimisation", minimum=1)
    ema_decay: float | None = option(
        None,
        "Also keep averaged weights, with this decay.",
        panel="Optimisation",
        metavar="X",
        minimum=0,
        maximum=0.9999999,
    )
    evaluate_epochs: int = option(1, "Evaluate after every so many epochs.", panel="Optimisation", minimum=1)

    @property
    def warmup_epochs(self) -> float:
        """How long `warmup` lasts.

        Raises:
            UserError: it is neither a number of epochs nor a share.
        """
        number, percent, rest = self.warmup.strip().partition("%")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if rest or not 0 <= value < (100 if percent else float("inf")):
            raise UserError(f"{self.warmup!r} is no length", "--warmup", "give epochs, as in 5, or a share, as in 10%")
        return value / 100 * self.epochs if percent else value


@dataclass(frozen=True, kw_only=True)
class SpeedOptions(FaultOptions, RunOptions):
    """Arithmetic and memory."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Arithmetic; auto: bf16 on a GPU.", panel="Speed"
    )
    compile: bool = option(False, "Compile the network with torch.compile.", panel="Speed")
    channels_last: bool = option(False, "Channels-last memory format.", panel="Speed")
    grad_checkpointing: bool = option(False, "Compute activations again in the backward pass.", panel="Speed")
    checkpoint_seconds: float = option(
        120.0, "Save the state of the training so often.", panel="Speed", metavar="S", minimum=0
    )
