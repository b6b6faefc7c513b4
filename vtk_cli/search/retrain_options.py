"""The options of a re-training: one architecture, from scratch, on all training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vtk_cli.engine.options import FaultOptions
from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, option
from vtk_cli.search.image_options import ImageOptions
from vtk_cli.search.retrain_recipes import RETRAIN_RECIPES


@dataclass(frozen=True, kw_only=True)
class RetrainTrainingOptions(FaultOptions, RunOptions):
    """How a network alone is trained."""

    recipe: str | None = option(
        None, "A published training [default: the architecture's own].", panel="Training", metavar="NAME"
    )
    epochs: int = option(250, "Passes over the training images.", panel="Training", minimum=1)
    lr: float = option(0.1, "Learning rate.", panel="Training", above=0)
    min_lr: float = option(0.0, "Learning rate at the end.", panel="Training", minimum=0)
    schedule: Literal["cosine", "linear", "linear-tail"] = option(
        "cosine",
        "How the learning rate falls; linear-tail: in a line, and from a fifth of its last value in the last five"
        " epochs.",
        panel="Training",
    )
    schedule_on: Literal["updates", "epochs"] = option(
        "epochs", "The learning rate changes with every update, or every epoch.", panel="Training"
    )
    warmup_epochs: int = option(0, "Epochs of linear warm-up.", panel="Training", minimum=0)
    momentum: float = option(0.9, "Momentum of SGD.", panel="Training", minimum=0, maximum=0.9999)
    nesterov: bool = option(False, "Nesterov's momentum.", panel="Training")
    weight_decay: float = option(3e-4, "Weight decay.", panel="Training", minimum=0)
    decay_on: Literal["all", "weights"] = option(
        "all", "Weight decay on all parameters, or on convolutions and classifier alone.", panel="Training"
    )
    clip_norm: float | None = option(None, "Largest 2-norm of the gradient.", panel="Training", metavar="X", above=0)
    smoothing: float = option(0.0, "Label smoothing.", panel="Training", minimum=0, maximum=0.9999)
    auxiliary: float = option(
        0.0, "Weight of the loss of a second classifier in the middle (darts only).", panel="Training", minimum=0
    )
    drop_path: float = option(
        0.0,
        "Chance to drop an edge's output at the end; it rises from 0 (darts only).",
        panel="Training",
        minimum=0,
        maximum=0.99,
    )
    accumulate: int = option(1, "Batches that make one update.", panel="Training", minimum=1)
    ema_decay: float | None = option(
        None,
        "Also keep averaged weights, with this decay.",
        panel="Training",
        metavar="X",
        minimum=0,
        maximum=0.9999999,
    )
    evaluate_epochs: int = option(1, "Evaluate after every so many epochs.", panel="Training", minimum=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Arithmetic; auto: bf16 on a GPU.", panel="Training"
    )
    checkpoint_seconds: float = option(
        120.0, "Save the state of the training so often.", panel="Training", metavar="S", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class RetrainOptions(ImageOptions, RetrainTrainingOptions):
    """Everything that a re-training is told but the architecture."""

    recipe_option: ClassVar[str] = "recipe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RETRAIN_RECIPES

    def check(self) -> None:
        """Options that contradict one another."""
        if self.schedule == "linear-tail" and (self.schedule_on == "updates" or self.min_lr):
            what = "falls by epochs, to 0"
            raise UserError(what, "--schedule linear-tail", "leave out --schedule-on updates and --min-lr")
        if self.warmup_epochs >= self.epochs > 1 and self.schedule != "linear-tail":
            what = f"{self.warmup_epochs} epochs of warm-up leave nothing of {self.epochs}"
            raise UserError(what, "--warmup-epochs", "give fewer, or train longer with --epochs")
        if self.nesterov and not self.momentum:
            raise UserError("needs a momentum", "--nesterov", "leave it out, or give --momentum 0.9")
