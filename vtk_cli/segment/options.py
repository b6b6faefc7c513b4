"""The options of `vtk segment run`, in groups by what they govern. Recipes (`recipes.py`) set the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vtk_cli.engine.options import FaultOptions
from vtk_cli.engine.processes.parallel_options import ParallelOptions
from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, option
from vtk_cli.segment.recipes import RECIPES
from vtk_cli.segment.solov2.configurations import SEGMENTERS

SCENES = "digits-coco"
"""The embedded dataset that stands in where no data is given."""
SCENES_MODEL, DEFAULT_MODEL = "solov2-micro", "solov2-r50"
NONE, IMAGENET = "none", "imagenet"
StageName = Literal["teacher", "pseudo", "rough", "refine", "merge", "student"]


def _complete_model(incomplete: str) -> list[str]:
    return [name for name in SEGMENTERS if name.startswith(incomplete)]


def _complete_recipe(incomplete: str) -> list[str]:
    return [name for name in RECIPES if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class LabelOptions(RunOptions):
    """Which images, and what is known of them."""

    strong: str = option(
        SCENES,
        "Fully labelled images: COCO JSON with masks; or digits-coco, of which a tenth is fully labelled.",
        panel="Data",
        metavar="JSON",
    )
    weak: Path | None = option(
        None,
        "Clicked images: COCO JSON with a point an object (or PointSup, keypoints, masks, boxes), or CSV with image,"
        " category, x, y.",
        panel="Data",
        metavar="FILE",
    )
    val: Path | None = option(
        None, "Fully labelled images to evaluate on: COCO JSON with masks.", panel="Data", metavar="JSON"
    )
    images: Path | None = option(
        None, "The folder of the strong and the weak images [default: beside their files].", panel="Data", metavar="DIR"
    )
    val_images: Path | None = option(
        None, "The folder of the images to evaluate on [default: beside their file].", panel="Data", metavar="DIR"
    )
    points: Literal["auto", "centroid", "random", "inside"] = option(
        "auto",
        "Where masks of clicked images are clicked that have no point; auto: random, with --faithful centroid.",
        panel="Data",
    )
    skip_bad: bool = option(
        False, "Leave wrong entries out, with their count, in place of refusing them.", panel="Data"
    )
    workers: int | None = option(
        None, "Processes that read images [default: one a core, at most 8].", panel="Data", metavar="N", minimum=0
    )

    @property
    def on_scenes(self) -> bool:
        """Whether the images are the embedded scenes of digits."""
        return self.strong == SCENES


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(RunOptions):
    """Which network, and what it starts from."""

    recipe: str | None = option(
        None,
        f"Defaults of a training: {', '.join(RECIPES)} [default: digits on digits-coco, else paper].",
        panel="Network",
        metavar="NAME",
        complete=_complete_recipe,
    )
    model: str | None = option(
        None,
        f"{', '.join(SEGMENTERS)} [default: {SCENES_MODEL} on digits-coco, else {DEFAULT_MODEL}].",
        panel="Network",
        metavar="NAME",
        complete=_complete_model,
    )
    weights: str = option(
        "auto",
        "Start from nothing, from a backbone trained on ImageNet (timm's), or from a file: SOLOv2 weights of vtk"
        " segment, mmdet or AdelaiDet; auto: imagenet, but for the micro network.",
        panel="Network",
        metavar="none|imagenet|FILE",
    )
    reset_head: bool = option(False, "A new classifier in place of that of the weight file.", panel="Network")
    sigma: float = option(
        0.2,
        "The teacher learns an object's masks in the cells of this central share of its box.",
        panel="Network",
        above=0,
        maximum=1,
    )
    size: int = option(800, "The shorter side of an image, in pixels.", panel="Network", minimum=32)

    @property
    def weights_file(self) -> Path | None:
        """The file that the networks start from; None where none is named."""
        return None if self.weights in {"auto", NONE, IMAGENET} else Path(self.weights)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(FaultOptions, RunOptions):
    """How teacher, refinement and student are trained."""

    augment: Literal["paper", "digits", "none"] = option(
        "paper", "Flips and sizes; or shifts, sizes and colours without flips; or none.", panel="Training"
    )
    batch_size: int = option(16, "Images at a time, over all processes.", panel="Training", minimum=1)
    optimizer: Literal["sgd", "adamw"] = option("sgd", "What moves the weights.", panel="Training")
    weight_decay: float = option(1e-4, "Weight decay; norms are spared.", panel="Training", minimum=0)
    schedule: Literal["steps", "one-cycle"] = option(
        "steps", "The learning rate falls to a tenth twice, or rises and falls once.", panel="Training"
    )
    clip_norm: float | None = option(
        None,
        "Largest 2-norm of the gradient [default: none; 35 below 16 images a batch or with fp16].",
        panel="Training",
        metavar="X",
        above=0,
    )
    teacher_steps: int | None = option(
        None,
        "Updates of the teacher [default: as published for COCO, else 75 passes, 10,000 to 270,000].",
        panel="Training",
        metavar="N",
        minimum=1,
    )
    teacher_lr: float = option(
        0.05,
        "Learning rate of the teacher; that of SGD is for 16 images a batch, and in proportion for fewer.",
        panel="Training",
        above=0,
    )
    teacher_warmup: int = option(3000, "Its updates of linear warm-up.", panel="Training", minimum=0)
    rough_at: tuple[str, ...] = option(
        (),
        "When the teacher's states for the rough masks are kept, as shares of its training; given twice"
        " [default: as published].",
        panel="Training",
        metavar="X",
    )
    student_steps: int = option(270_000, "Updates of the student.", panel="Training", minimum=1)
    student_lr: float = option(0.01, "Learning rate of the student; the same holds.", panel="Training", above=0)
    student_warmup: int = option(1000, "Its updates of linear warm-up.", panel="Training", minimum=0)
    student_start: Literal["fresh", "teacher"] = option(
        "fresh", "The student starts as the teacher did, or from the trained teacher.", panel="Training"
    )
    refiner: Literal["resnet101", "micro"] = option("resnet101", "The MaskRefineNet.", panel="Training")
    refine_steps: int | None = option(
        None, "Updates of the MaskRefineNet [default: as published].", panel="Training", metavar="N", minimum=1
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "fp32", "Arithmetic; auto: bf16 on a GPU.", panel="Training"
    )
    evaluations: int = option(
        10,
        "How often AP on the --val images is taken while a network trains; the weights that do best are kept too.",
        panel="Training",
        metavar="N",
        minimum=1,
    )
    checkpoint_seconds: float = option(
        120.0, "Save the state of a training so often.", panel="Training", metavar="S", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class PseudoOptions(RunOptions):
    """How clicks become labels."""

    refine: bool = option(True, "Refine the pseudo masks with a MaskRefineNet.", panel="Pseudo labels")
    require_point_inside: Literal["auto", "on", "off"] = option(
        "auto",
        "Prefer the level whose mask covers the click; auto: on, with --faithful off.",
        panel="Pseudo labels",
    )
    neighbours: bool = option(False, "Look for a click's mask in the cells around its own too.", panel="Pseudo labels")
    pseudo_nms: bool = option(
        True, "Of masks of a class that overlap by more than half, keep one.", panel="Pseudo labels"
    )
    most_objects: int = option(100, "At most so many pseudo masks an image.", panel="Pseudo labels", minimum=1)
    ignore_unresolved: bool = option(
        False,
        "The student does not learn the surroundings of clicks without a mask as background.",
        panel="Pseudo labels",
    )
    faithful: bool = option(False, "As published where this program would do better.", panel="Pseudo labels")
    official_quirks: bool = option(
        False, "Also the slips of the published code: shared cells, Dice by columns.", panel="Pseudo labels"
    )


@dataclass(frozen=True, kw_only=True)
class SegmentOptions(LabelOptions, NetworkOptions, TrainingOptions, PseudoOptions, ParallelOptions):
    """All options of `vtk segment run`."""

    until: StageName = option("student", "Stop after this stage.", panel="Stages", recorded=False)
    redo: StageName | None = option(
        None, "Make this stage again, and those that depend on it.", panel="Stages", recorded=False
    )
    rounds: int = option(
        1,
        "Rounds of labels and students; from the second on, the student before is the teacher.",
        panel="Stages",
        minimum=1,
    )
    ema_rounds: int = option(
        0,
        "Further rounds in which the student goes on, labelled by the moving average of its weights.",
        panel="Stages",
        minimum=0,
    )
    ema_steps: int | None = option(
        None, "Updates of each of these [default: those of the student].", panel="Stages", metavar="N", minimum=1
    )
    ema_decay: float = option(0.9996, "Decay of the average, an update.", panel="Stages", above=0, maximum=0.99999)
    recipe_option: ClassVar[str] = "recipe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """`digits` on the embedded scenes, else `paper`."""
        return "digits" if given.get("strong") in {None, SCENES} else "paper"

    @property
    def point_mode(self) -> Literal["centroid", "random", "inside"]:
        """How masks are clicked."""
        if self.points == "auto":
            return "centroid" if self.faithful else "random"
        return self.points

    @property
    def point_inside(self) -> bool:
        """Whether a mask that covers its click is preferred."""
        return not self.faithful if self.require_point_inside == "auto" else self.require_point_inside == "on"

    @property
    def snapshots(self) -> tuple[float, ...]:
        """When the teacher's states are kept, as shares of its training; empty: as published."""
        return tuple(float(share) for share in self.rough_at)

    def check(self) -> None:
        """Options that contradict one another."""
        if not self.on_scenes and self.weak is None:
            raise UserError("which images are clicked?", "--weak", "give COCO JSON or CSV (image, category, x, y)")
        if self.on_scenes and self.weak is not None:
            raise UserError("which images are fully labelled?", "--strong", "give COCO JSON with masks")
        if self.faithful and self.ignore_unresolved:
            raise UserError("is not as published", "--ignore-unresolved", "leave out --faithful")
        try:
            right = all(0 < share < 1 for share in self.snapshots) and len(self.snapshots) in {0, 2}
        except ValueError:
            right = False
        if not right:
            raise UserError(f"{', '.join(self.rough_at)} are not two shares", "--rough-at", "give two between 0 and 1")
        if self.reset_head and self.weights_file is None:
            raise UserError("there is no classifier to replace", "--reset-head", "name weights with --weights FILE")
