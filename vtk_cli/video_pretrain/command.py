"""`vtk video-pretrain`: the face of its verbs. Options in, result out; the story of a training is in `job.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtk_cli.console import Console
from vtk_cli.engine.processes.launch import launched
from vtk_cli.engine.recipe_verb import RecipeTable, add_recipes
from vtk_cli.errors import ExitCode
from vtk_cli.options import SpeechOptions, add_command, new_app, option
from vtk_cli.video_pretrain.data_options import DecodeOptions, WorkerOptions
from vtk_cli.video_pretrain.eval_options import EVAL_RECIPES, MODEL_HELP, EvalOptions, eval_recipe_source
from vtk_cli.video_pretrain.method_options import FreqAug, FreqAugOptions
from vtk_cli.video_pretrain.options import VideoOptions
from vtk_cli.video_pretrain.recipes import RECIPES, recipe_source
from vtk_cli.video_pretrain.update_options import TestViewOptions


@dataclass(frozen=True, kw_only=True)
class PreviewOptions(FreqAugOptions, DecodeOptions):
    """`vtk video-pretrain preview`."""

    clip: str = option(
        "moving-digits", "A video, a folder of frames, or moving-digits.", positional=True, metavar="CLIP"
    )
    freqaug: FreqAug = option(
        "t", "Along time, space, both one after the other, both at once, or differences of frames.", panel="FreqAug"
    )
    sampling: str = option(
        "stride:8x2", "The frames: dense:TxS, stride:TxS or segment:T.", panel="Data", metavar="KIND:TxS"
    )
    img_size: int = option(112, "The side that frames are resized and cut to.", panel="Data", metavar="N", minimum=8)
    mean: float = option(0.45, "Subtracted from values in [0, 1].", panel="Data", minimum=0, maximum=1)
    std: float = option(0.225, "Divides them.", panel="Data", above=0)
    out: Path | None = option(
        None, "Where the picture and the film go [default: preview].", panel="Output", short="-o", metavar="DIR"
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(DecodeOptions, WorkerOptions, TestViewOptions):
    """`vtk video-pretrain predict`."""

    videos: tuple[str, ...] = option((), "Videos, folders or patterns.", positional=True, metavar="VIDEOS")
    model: str = option("", MODEL_HELP, panel="Network", metavar="MODEL")
    top_k: int = option(5, "So many classes a video.", panel="Output", minimum=1)
    features: bool = option(False, "Also write features.npz: feat, path, start and end of every clip.", panel="Output")
    sampling: str | None = option(
        None, "The frames of a clip [default: as in the run].", panel="Data", metavar="KIND:TxS"
    )
    out: Path | None = option(
        None, "Where predictions.json goes [default: predictions].", panel="Output", short="-o", metavar="DIR"
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", "Arithmetic.", panel="Run")


def run(options: VideoOptions, console: Console) -> ExitCode:
    """Train a video network that looks at motion: FreqAug (arXiv 2204.03865) and TIME (arXiv 2207.09067).

    Self-supervised (--method moco, byol, simclr, swav), two clips of a video are pulled together; FreqAug (--freqaug t)
    takes from some of them what does not move, so that a static background no longer gives the video away. With
    --objective supervised, temporal losses (--time order,debias,flow) teach a transformer the order of frames.

    Without DATA a small network is trained on the embedded clips of moving digits.
    """
    from vtk_cli.video_pretrain.job import train_video

    return train_video(options, console)


def evaluate(options: EvalOptions, console: Console) -> ExitCode:
    """Evaluate a trained network: its classes, or a linear probe, nearest neighbours, retrieval or fine-tuning."""
    from vtk_cli.video_pretrain.use import evaluate_model

    return evaluate_model(options, console)


def preview(options: PreviewOptions, console: Console) -> ExitCode:
    """Show what the filter takes from a clip: frames before and after, spectra, and an MP4 of both side by side."""
    from vtk_cli.video_pretrain.preview import preview_clip

    return preview_clip(options, console)


def predict(options: PredictOptions, console: Console) -> ExitCode:
    """Name the likeliest classes of videos, or write their features."""
    from vtk_cli.video_pretrain.use import predict_videos

    return predict_videos(options, console)


def models(options: SpeechOptions, console: Console) -> ExitCode:  # noqa: ARG001
    """List the networks that --model names."""
    from vtk_cli.video_pretrain.network_table import show_models

    return show_models(console)


app = new_app()
add_command(
    app,
    VideoOptions,
    launched(run),
    name="run",
    epilog="Examples:  vtk video-pretrain run   ·   vtk video-pretrain run --objective supervised   ·  "
    " vtk video-pretrain run train.csv --val val.csv --recipe freqaug-moco --batch-size 256",
)
add_command(
    app,
    EvalOptions,
    launched(evaluate),
    name="eval",
    epilog="Examples:  vtk video-pretrain eval   ·   vtk video-pretrain eval RUN ucf101/ --protocol finetune"
    " --recipe finetune-ucf101",
)
add_command(
    app,
    PreviewOptions,
    preview,
    name="preview",
    epilog="Examples:  vtk video-pretrain preview   ·   vtk video-pretrain preview clip.mp4 --freqaug st",
)
add_command(
    app, PredictOptions, predict, name="predict", epilog="Examples:  vtk video-pretrain predict clip.mp4 --top-k 3"
)
add_recipes(
    app,
    "video-pretrain",
    RecipeTable("vtk video-pretrain run", "--recipe", RECIPES, recipe_source, {"epochs": "epochs"}),
    RecipeTable("vtk video-pretrain eval", "--recipe", EVAL_RECIPES, eval_recipe_source),
)
add_command(app, SpeechOptions, models, name="models", epilog="Examples:  vtk video-pretrain models")
