"""The options of `vtk video-pretrain` that say how weights are updated and how clips are tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vtk_cli.engine.options import FaultOptions
from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, SpeechOptions, option

Schedule = Literal["cosine", "steps", "constant"]


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions(RunOptions):
    """The optimiser and its schedule."""

    epochs: int = option(200, "Passes over the training videos.", panel="Optimisation", minimum=1)
    optimizer: str = option("sgd", "lars, or any of timm's optimisers.", panel="Optimisation", metavar="NAME")
    lr: float = option(0.1, "Learning rate.", panel="Optimisation", above=0)
    lr_base_size: int | None = option(
        None,
        "The learning rates are meant for so many videos an update, and scaled to yours.",
        panel="Optimisation",
        metavar="N",
        minimum=1,
    )
    weight_decay: float = option(1e-4, "Weight decay, but for vectors.", panel="Optimisation", minimum=0)
    momentum: float = option(
        0.9, "Momentum, for optimisers that have one.", panel="Optimisation", minimum=0, maximum=0.9999
    )
    amsgrad: bool = option(False, "Adam's steps never grow again (AMSGrad).", panel="Optimisation")
    schedule: Schedule = option(
        "cosine", "The learning rate falls along a cosine, at --milestones, or not.", panel="Optimisation"
    )
    warmup: float = option(0.0, "Epochs of linear warm-up.", panel="Optimisation", minimum=0)
    warmup_lr: float = option(0.0, "Learning rate at the start of the warm-up.", panel="Optimisation", minimum=0)
    min_lr: float = option(0.0, "Learning rate at the end of a cosine.", panel="Optimisation", minimum=0)
    milestones: str = option("", "Epochs at which --schedule steps takes a tenth, as in 20,30.", panel="Optimisation")
    clip_norm: float | None = option(
        None, "Largest 2-norm of the gradient.", panel="Optimisation", metavar="X", above=0
    )
    accumulate: int = option(1, "Batches that make one update.", panel="Optimisation", minimum=1)
    ema_decay: float | None = option(
        None,
        "Supervised: also keep averaged weights, with this decay.",
        panel="Optimisation",
        metavar="X",
        minimum=0,
        maximum=0.9999999,
    )
    evaluate_epochs: int = option(1, "Supervised: test after every so many epochs.", panel="Optimisation", minimum=1)

    @property
    def milestone_epochs(self) -> tuple[int, ...]:
        """The epochs of `milestones`, in order.

        Raises:
            UserError: they are no list of epochs, or not needed or missing.
        """
        words = [word.strip() for word in self.milestones.split(",") if word.strip()]
        if not all(word.isdecimal() for word in words):
            raise UserError(f"{self.milestones!r} are no epochs", "--milestones", "give e.g. 20,30")
        if bool(words) != (self.schedule == "steps"):
            fix = "give e.g. 20,30" if not words else "give --schedule steps, or leave them out"
            raise UserError("go with --schedule steps", "--milestones", fix)
        return tuple(sorted(map(int, words)))


@dataclass(frozen=True, kw_only=True)
class SpeedOptions(FaultOptions):
    """Arithmetic and memory."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Arithmetic; auto: bf16 on a GPU.", panel="Speed"
    )
    compile: bool = option(False, "Compile the network with torch.compile.", panel="Speed")
    checkpoint_seconds: float = option(
        120.0, "Save the state of the training so often.", panel="Speed", metavar="S", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class TestViewOptions(SpeechOptions):
    """Multi-view testing: several clips of a video, several crops of a clip."""

    test_clips: int = option(
        1, "Clips of a video in a test; while a training goes on, one.", panel="Testing", minimum=1
    )
    test_crops: Literal["1", "3"] = option(
        "1",
        "Crops of a clip: the centre, or both ends of the longer side too; while a training goes on, the centre.",
        panel="Testing",
    )
    test_scale: int | None = option(
        None, "Short side of a frame in a test [default: the input's].", panel="Testing", metavar="N", minimum=8
    )
    views_offset: Literal["start", "even"] = option(
        "start", "The clips start at i/K of what is left (PySlowFast), or evenly to the very end.", panel="Testing"
    )
    ensemble: Literal["softmax", "logits"] = option(
        "softmax", "What is averaged over the views of a video.", panel="Testing"
    )


@dataclass(frozen=True, kw_only=True)
class MissingOptions(SpeechOptions):
    """What becomes of a test in which videos are missing."""

    allow_missing: bool = option(
        False, "Test although some videos cannot be decoded; they are listed and left out.", panel="Testing"
    )
