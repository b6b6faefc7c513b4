"""The options of `vtk detect train`, in groups by what they govern. Recipes (`recipes.py`) set the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vtk_cli.detect.configurations import DETECTORS
from vtk_cli.detect.recipes import RECIPES
from vtk_cli.engine.options import FaultOptions
from vtk_cli.engine.processes.parallel_options import ParallelOptions
from vtk_cli.errors import UserError
from vtk_cli.models.names import ALIASES
from vtk_cli.options import RunOptions, option

SCENES = "digits-coco"
"""The embedded dataset that stands in where no data is given."""
SCENES_MODEL = "vidt-micro"
DEFAULT_MODEL = "vidt-plus-tiny"
"""The smallest detector of today's form whose backbone timm publishes weights for."""
NONE, IMAGENET = "none", "imagenet"


def _complete_model(incomplete: str) -> list[str]:
    return [name for name in DETECTORS if name.startswith(incomplete)]


def _complete_backbone(incomplete: str) -> list[str]:
    return [name for name in ALIASES if name.startswith(incomplete)]


def _complete_recipe(incomplete: str) -> list[str]:
    return [name for name in RECIPES if name.startswith(incomplete)]


def _complete_data(incomplete: str) -> list[str]:
    return [word for word in (SCENES,) if word.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class DataOptions(RunOptions):
    """Which images."""

    data: str = option(
        SCENES,
        "COCO (folder or JSON file), YOLO (folder or data.yaml), Pascal VOC, an export of Roboflow, or digits-coco.",
        positional=True,
        metavar="DATA",
        complete=_complete_data,
    )
    val: str | None = option(
        None, "Images to evaluate on, where DATA has no val split of its own.", panel="Data", metavar="DATA"
    )
    skip_bad: bool = option(
        False, "Leave wrong entries out, with their count, in place of refusing them.", panel="Data"
    )
    images: int | None = option(None, "Train on the first so many images.", panel="Data", metavar="N", minimum=1)
    batch_size: int = option(16, "Images at a time, over all processes.", panel="Data", minimum=1)
    workers: int | None = option(
        None, "Processes that read images [default: one a core, at most 8].", panel="Data", metavar="N", minimum=0
    )

    @property
    def on_scenes(self) -> bool:
        """Whether the images are the embedded scenes of digits."""
        return self.data == SCENES


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(RunOptions):
    """Which detector, and what it starts from."""

    recipe: str | None = option(
        None,
        f"Defaults of a training: {', '.join(RECIPES)} [default: digits on digits-coco, finetune from a weight file,"
        " else paper].",
        panel="Network",
        metavar="NAME",
        complete=_complete_recipe,
    )
    model: str | None = option(
        None,
        "vidt-, vidt-plus- or vidt-neck-free- and nano, tiny, small, base or micro [default: that of the weight file,"
        f" {SCENES_MODEL} on digits-coco, else {DEFAULT_MODEL}].",
        panel="Network",
        metavar="NAME",
        complete=_complete_model,
    )
    backbone: str | None = option(
        None,
        "In place of --model's Swin, any network with feature maps of strides 8, 16 and 32: a timm name such as"
        " resnet50, NAME=FILE, or a weight file that says what it is. DET tokens pass it by.",
        panel="Network",
        metavar="NAME|FILE",
        complete=_complete_backbone,
    )
    weights: str | None = option(
        None,
        "Start from nothing, from a backbone trained on ImageNet (timm's), or from a file: a detector's weights or run,"
        " published vidt_*.pth, or a backbone's [default: imagenet where timm has it].",
        panel="Network",
        metavar="none|imagenet|FILE",
    )
    reset_head: bool = option(False, "New classifiers in place of those of the weight file.", panel="Network")
    queries: int | None = option(
        None, "DET tokens: the most objects an image may have [default: the model's].", panel="Network", minimum=1
    )
    masks: Literal["auto", "on", "off"] = option(
        "auto", "Learn masks (ViDT+'s query codes); auto: if the model has them and all objects do.", panel="Network"
    )
    drop_path: float | None = option(
        None,
        "Stochastic depth of the backbone's last block [default: the network's own].",
        panel="Network",
        minimum=0,
        maximum=0.99,
    )
    freeze_bn: Literal["auto", "on", "off"] = option(
        "auto",
        "Batch norms of --backbone keep their statistics, scales and shifts, as in DETR; auto: with trained weights.",
        panel="Network",
    )
    dropout: float | None = option(
        None, "Dropout of the decoder [default: the model's].", panel="Network", minimum=0, maximum=0.99
    )


@dataclass(frozen=True, kw_only=True)
class InputOptions(RunOptions):
    """How images reach the network."""

    resize: Literal["short", "stretch", "letterbox"] = option(
        "short",
        "To a shorter side, the rest of the batch padded (paper); or to a square, stretched or with its shape kept.",
        panel="Images",
    )
    size: int = option(800, "The shorter side, or the side of the square, in pixels.", panel="Images", minimum=32)
    augment: Literal["paper", "modern", "none"] = option(
        "paper",
        "Flips, sizes and crops; or colours, flips and zooms to one size; or none at all.",
        panel="Images",
    )
    mosaic: float = option(0.0, "Chance that a sample is a mosaic of four.", panel="Images", minimum=0, maximum=1)
    mixup: float = option(0.0, "Chance that a sample is blended with another.", panel="Images", minimum=0, maximum=1)
    plain_epochs: float = option(
        0.0, "The last share of the epochs goes without mosaic and mixup.", panel="Images", minimum=0, maximum=1
    )


@dataclass(frozen=True, kw_only=True)
class LossOptions(RunOptions):
    """What is learned besides boxes."""

    iou_target_grad: bool = option(True, "The IoU loss of ViDT+ also moves the boxes, as published.", panel="Loss")
    teacher: Path | None = option(
        None, "Learn the tokens of this trained detector too (a run or a weight file).", panel="Loss", metavar="MODEL"
    )
    distil_weight: float = option(4.0, "Weight of that loss.", panel="Loss", minimum=0)
    distil_root: bool = option(True, "Its square root, as published.", panel="Loss")


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions(RunOptions):
    """The optimiser and its schedule."""

    epochs: int = option(50, "Passes over the training images.", panel="Optimisation", minimum=1)
    steps: int | None = option(
        None,
        "Make so many updates, in epochs of equal length, in place of --epochs.",
        panel="Optimisation",
        metavar="N",
        minimum=1,
    )
    lr: float = option(1e-4, "Learning rate (AdamW).", panel="Optimisation", above=0)
    backbone_lr: float | None = option(
        None,
        "Learning rate of the backbone, as a share of --lr [default: 0.1 for a --backbone with trained weights, as in"
        " DETR; else 1].",
        panel="Optimisation",
        metavar="X",
        above=0,
    )
    min_lr: float = option(1e-7, "Where the cosine ends.", panel="Optimisation", minimum=0)
    schedule_on: Literal["epochs", "updates"] = option(
        "epochs", "The learning rate changes every epoch, or with every update.", panel="Optimisation"
    )
    warmup_steps: int = option(0, "Updates of linear warm-up.", panel="Optimisation", minimum=0)
    weight_decay: float = option(1e-4, "Weight decay.", panel="Optimisation", minimum=0)
    decay_of: Literal["paper", "matrices"] = option(
        "paper",
        "What decays: all but the backbone's vectors and DET tokens, as published; or matrices alone.",
        panel="Optimisation",
    )
    clip_norm: float | None = option(0.1, "Largest 2-norm of the gradient.", panel="Optimisation", metavar="X", above=0)
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


@dataclass(frozen=True, kw_only=True)
class SpeedOptions(FaultOptions, RunOptions):
    """Arithmetic and memory."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "fp32", "Arithmetic; auto: bf16 on a GPU.", panel="Speed"
    )
    grad_checkpointing: bool = option(False, "Compute the backbone's activations again.", panel="Speed")
    checkpoint_seconds: float = option(
        120.0, "Save the state of the training so often.", panel="Speed", metavar="S", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(
    DataOptions, NetworkOptions, InputOptions, LossOptions, OptimizationOptions, SpeedOptions, ParallelOptions
):
    """All options of `vtk detect train`."""

    recipe_option: ClassVar[str] = "recipe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """`digits` on the embedded scenes, `finetune` from a weight file, else `paper`."""
        if given.get("data") in {None, SCENES}:
            return "digits"
        return "paper" if given.get("weights") in {None, NONE, IMAGENET} else "finetune"

    @property
    def mixes(self) -> bool:
        """Whether samples are made of several images."""
        return self.mosaic > 0 or self.mixup > 0

    def check(self) -> None:
        """Options that contradict one another."""
        if self.augment == "modern" and self.resize == "short":
            fix = "give --resize stretch or letterbox"
            raise UserError("it brings every image to one square size", "--augment modern", fix)
        if self.augment == "paper" and self.resize != "short":
            what = "the paper's sizes vary, and a square does not"
            raise UserError(what, "--augment paper", "give --resize short, or --augment modern")
        if self.mixes and self.augment != "modern":
            flag = "--mosaic" if self.mosaic else "--mixup"
            raise UserError("images are mixed on a square canvas", flag, "give --augment modern --resize stretch")
        if self.reset_head and self.weights in {None, NONE, IMAGENET}:
            fix = "name the weights with --weights FILE, or choose another --recipe"
            raise UserError("there is no classifier to replace", "--reset-head", fix)
        if self.min_lr > self.lr:
            raise UserError(f"{self.min_lr:g} is above the learning rate {self.lr:g}", "--min-lr", "give a lower one")
