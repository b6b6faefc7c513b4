"""`vtk train`: the face of the command and of its verbs. Options in, result out; the story is in `job.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from vtk_cli.console import Console
from vtk_cli.engine.processes.launch import launched
from vtk_cli.engine.processes.parallel_options import ProcessOptions
from vtk_cli.engine.recipe_verb import RecipeTable, add_recipes
from vtk_cli.errors import ExitCode
from vtk_cli.options import SpeechOptions, add_command, new_app, option
from vtk_cli.train.image_options import parse_eval_sets
from vtk_cli.train.options import TrainOptions
from vtk_cli.train.recipes import RECIPES, recipe_source

_MODEL_HELP = "A run folder, a weight file, or a network with published weights [default: the newest in runs/train]."

_WHICH_HELP = "Of a run: the weights at the end, their average, or those that did best on its validation images."


class ExportFormat(StrEnum):
    """What a network can be exported as."""

    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"


@dataclass(frozen=True, kw_only=True)
class _UseOptions(SpeechOptions):
    """What everything that uses a trained network is told."""

    which: Literal["last", "ema", "best"] = option("last", _WHICH_HELP, panel="Network")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    batch_size: int = option(64, "Images at a time.", panel="Run", minimum=1)
    workers: int | None = option(
        None, "Processes that read images [default: one a core, at most 8].", panel="Run", metavar="N", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(_UseOptions, ProcessOptions):
    """`vtk train eval`."""

    model: str = option("", _MODEL_HELP, positional=True, metavar="MODEL")
    data: str | None = option(
        None, "Images [default: the validation images of the run].", positional=True, metavar="DATA"
    )
    eval_set: tuple[str, ...] = option(
        (),
        "Another set, NAME=PATH (ImageNet-V2, -A, -R, -Sketch, ReaL ...); may be repeated.",
        panel="Data",
        metavar="NAME=PATH",
    )
    outlier_set: tuple[str, ...] = option(
        (),
        "Images that show none of the classes, NAME=PATH (ImageNet-O): how well confidence tells them apart, as the"
        " area under the precision-recall curve; may be repeated.",
        panel="Data",
        metavar="NAME=PATH",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", "Arithmetic.", panel="Run")
    out: Path | None = option(
        None, "Write evaluation.json, per-class.csv and pictures there.", panel="Run", short="-o", metavar="DIR"
    )

    @property
    def eval_sets(self) -> dict[str, Path]:
        """Name -> folder of `eval_set`."""
        return parse_eval_sets(self.eval_set)

    @property
    def outlier_sets(self) -> dict[str, Path]:
        """Name -> folder of `outlier_set`."""
        return parse_eval_sets(self.outlier_set, "--outlier-set")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(_UseOptions):
    """`vtk train predict`."""

    images: tuple[Path, ...] = option((), "Images, or folders of images.", positional=True, metavar="IMAGES")
    model: str = option("", _MODEL_HELP, panel="Network", metavar="MODEL")
    top_k: int = option(5, "So many classes an image.", panel="Output", minimum=1)
    out: Path = option(
        Path("predictions"),
        "Where predictions.csv, .json and the contact sheet go.",
        panel="Run",
        short="-o",
        metavar="DIR",
    )


@dataclass(frozen=True, kw_only=True)
class ExportOptions(SpeechOptions):
    """`vtk train export`."""

    model: str = option("", _MODEL_HELP, positional=True, metavar="MODEL")
    which: Literal["last", "ema", "best"] = option("last", _WHICH_HELP, panel="Network")
    format: tuple[ExportFormat, ...] = option(
        (ExportFormat.ONNX, ExportFormat.TORCH_EXPORT), "What to write; may be repeated.", panel="Export"
    )
    tolerance: float = option(
        1e-4, "Largest difference of a logit, as a share of the largest logit.", panel="Export", above=0
    )
    out: Path | None = option(
        None, "The folder [default: the run's, or that of the weight file].", panel="Run", short="-o", metavar="DIR"
    )


def train(options: TrainOptions, console: Console) -> ExitCode:
    """Train an image classifier, by default with a masked sub-branch (AugMask, arXiv 2306.11339).

    Every step runs a second forward pass of the same weights on a part of the image, taught by the first pass: the
    same network, more accurate where it would overfit, at 1.5 times the cost of a plain step on vision transformers
    (--sub none: plain training). --byproducts adds where annotators clicked as a second target (arXiv 2303.17595).

    Without DATA a small vision transformer is trained on the embedded digits. Further verbs: vtk train eval, predict,
    export, recipes; a folder of such a name is written ./eval.
    """
    from vtk_cli.train.job import check_byproducts_only, train_network

    return check_byproducts_only(options, console) if options.ab_check else train_network(options, console)


def evaluate(options: EvalOptions, console: Console) -> ExitCode:
    """Evaluate a trained network: top-1, top-5, likelihood, calibration, every class; further sets with --eval-set."""
    from vtk_cli.train.use import evaluate_model

    return evaluate_model(options, console)


def predict(options: PredictOptions, console: Console) -> ExitCode:
    """Name the likeliest classes of images, in a table and on a contact sheet."""
    from vtk_cli.train.use import predict_images

    return predict_images(options, console)


def export(options: ExportOptions, console: Console) -> ExitCode:
    """Write a trained network as ONNX and as a `torch.export` program, each read back and compared."""
    from vtk_cli.train.use import export_model

    return export_model(options, console)


app = new_app()
add_command(
    app,
    TrainOptions,
    launched(train),
    name="train",
    epilog="Examples:  vtk train   ·   vtk train --images-per-class 10 --epochs 300 --sub none   ·  "
    " vtk train imagenet --recipe deit3-b-400 --batch-size 256 --accumulate 8",
)
add_command(
    app,
    EvalOptions,
    launched(evaluate),
    name="eval",
    epilog="Examples:  vtk train eval runs/train/2025-01-31-digits   ·   vtk train eval resnet50 imagenet/val",
)
add_command(
    app,
    PredictOptions,
    predict,
    name="predict",
    epilog="Examples:  vtk train predict photos/   ·   vtk train predict cat.jpg dog.jpg --model resnet50",
)
add_command(
    app, ExportOptions, export, name="export", epilog="Examples:  vtk train export runs/train/2025-01-31-digits"
)
add_recipes(
    app,
    "train",
    RecipeTable("vtk train", "--recipe", RECIPES, recipe_source, {"epochs": "epochs", "batch_size": "batch"}),
)
