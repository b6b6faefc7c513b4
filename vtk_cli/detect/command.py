"""`vtk detect`: the face of its verbs. Options in, result out; the training's story is in `job.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtk_cli.console import Console
from vtk_cli.detect.options import SCENES_MODEL, TrainOptions
from vtk_cli.detect.recipes import RECIPES, recipe_source
from vtk_cli.engine.processes.launch import launched
from vtk_cli.engine.processes.parallel_options import ProcessOptions
from vtk_cli.engine.recipe_verb import RecipeTable, add_recipes
from vtk_cli.errors import ExitCode
from vtk_cli.options import SpeechOptions, add_command, new_app, option

_MODEL_HELP = "A run folder, a weight file of vtk detect, or a published vidt_*.pth."
_WHICH_HELP = "Of a run: the weights at the end, their average, or those that did best on its validation images."


@dataclass(frozen=True, kw_only=True)
class _NetworkOptions(SpeechOptions):
    """What everything that uses a trained detector is told."""

    which: Literal["last", "ema", "best"] = option("last", _WHICH_HELP, panel="Network")
    dec_layers: int | None = option(
        None, "Predict after so many layers of the decoder: faster, no new training.", panel="Network", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class _UseOptions(_NetworkOptions):
    """What everything that looks at images is told."""

    size: int | None = option(
        None, "Side of the images, in pixels [default: as trained].", panel="Network", metavar="N", minimum=32
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("fp32", "Arithmetic.", panel="Run")
    batch_size: int = option(8, "Images of one size at a time.", panel="Run", minimum=1)
    workers: int | None = option(
        None, "Processes that read images [default: one a core, at most 8].", panel="Run", metavar="N", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(_UseOptions, ProcessOptions):
    """`vtk detect eval`."""

    model: str = option("", _MODEL_HELP, positional=True, metavar="MODEL")
    data: str | None = option(
        None, "Images with boxes [default: the validation images of the run].", positional=True, metavar="DATA"
    )
    split: Literal["train", "val", "test"] = option("val", "Which part of DATA.", panel="Data")
    skip_bad: bool = option(
        False, "Leave wrong entries out, with their count, in place of refusing them.", panel="Data"
    )
    masks: bool = option(True, "Evaluate masks too, where the detector and the data have them.", panel="Data")
    out: Path | None = option(
        None,
        "Write evaluation.json, results.json (COCO's format), per-class.csv, a page and its pictures there.",
        panel="Run",
        short="-o",
        metavar="DIR",
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(_UseOptions):
    """`vtk detect predict`."""

    images: tuple[str, ...] = option(
        (), "Images, videos, folders or patterns such as 'photos/*.jpg'.", positional=True, metavar="IMAGES"
    )
    model: str = option(
        "", f"{_MODEL_HELP} [default: the newest run in runs/detect-train]", panel="Network", metavar="MODEL"
    )
    conf: float = option(0.3, "Least score that is shown.", panel="Output", minimum=0, maximum=1)
    classes: tuple[str, ...] = option((), "Show this class alone; may be repeated.", panel="Output", metavar="NAME")
    max_det: int = option(100, "At most so many objects an image.", panel="Output", minimum=1)
    mask: bool = option(False, "Draw and save masks; the detector must have learned them.", panel="Output")
    save_txt: bool = option(False, "A text file an image, in YOLO's format with scores.", panel="Output")
    save_json: bool = option(False, "predictions.json.", panel="Output")
    crop: bool = option(False, "Cut every object out, into crops/CLASS/.", panel="Output")
    every: int = option(1, "Of a video, look at every Nth frame.", panel="Output", metavar="N", minimum=1)
    out: Path = option(Path("predictions"), "Where the pictures and files go.", panel="Run", short="-o", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class ExportOptions(_NetworkOptions):
    """`vtk detect export`."""

    model: str = option("", _MODEL_HELP, positional=True, metavar="MODEL")
    size: tuple[int, ...] = option(
        (), "Height and width, given twice, or one side of a square [default: as trained].", panel="Export", metavar="N"
    )
    batch: str = option("dynamic", "Images at a time: dynamic, or a number.", panel="Export", metavar="dynamic|N")
    mask: bool = option(False, "With the codes of the masks.", panel="Export")
    tolerance: float = option(
        1e-4, "Largest difference of a logit or box, as a share of the largest.", panel="Export", above=0
    )
    out: Path | None = option(
        None, "The folder [default: that of the weights].", panel="Run", short="-o", metavar="DIR"
    )


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(SpeechOptions):
    """`vtk detect convert`."""

    file: Path | None = option(
        None, "A published vidt_*.pth, or a weight file of vtk detect.", positional=True, metavar="FILE"
    )
    to: Literal["vtk", "official"] = option("vtk", "The form to write.", panel="Output")
    coco_classes: bool = option(
        False,
        "Of COCO's 91 rows keep those of its 80 classes; the answers for these stay exactly the same.",
        panel="Output",
    )
    out: Path | None = option(
        None, "The file to write [default: beside FILE].", panel="Output", short="-o", metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class BenchOptions(_NetworkOptions):
    """`vtk detect bench`."""

    model: str = option(
        SCENES_MODEL, f"{_MODEL_HELP} Or a detector's name: with random weights.", positional=True, metavar="MODEL"
    )
    size: int | None = option(
        None, "Side of the image [default: as trained, or 640].", panel="Bench", metavar="N", minimum=32
    )
    batch_size: int = option(1, "Images at a time.", panel="Bench", minimum=1)
    rounds: int = option(50, "Passes that are timed.", panel="Bench", minimum=1)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")


def train(options: TrainOptions, console: Console) -> ExitCode:
    """Train a detector: ViDT (arXiv 2110.03921) or ViDT+ (arXiv 2204.07962), without anchors and without NMS.

    With --backbone its neck and decoder stand on any network with feature maps in place of a Swin with DET tokens.

    DATA is COCO, YOLO, Pascal VOC or an export of Roboflow, told apart by what is there. Without DATA a small ViDT
    learns the digits in the embedded scenes. The run folder holds the weights (last, averaged, best), the curves,
    COCO's numbers, a table of the classes and pictures of what was found.
    """
    from vtk_cli.detect.job import train_detector

    return train_detector(options, console)


def evaluate(options: EvalOptions, console: Console) -> ExitCode:
    """Evaluate a trained detector: COCO's 12 numbers for boxes and masks, every class, results in COCO's format."""
    from vtk_cli.detect.use import evaluate_model

    return evaluate_model(options, console)


def predict(options: PredictOptions, console: Console) -> ExitCode:
    """Find objects in images and videos, and draw them."""
    from vtk_cli.detect.use import predict_images

    return predict_images(options, console)


def export(options: ExportOptions, console: Console) -> ExitCode:
    """Write a trained detector as ONNX, read it back in onnxruntime and compare.

    Deformable attention becomes GridSample; all that does not depend on the image is computed once and stored.
    """
    from vtk_cli.detect.use import export_model

    return export_model(options, console)


def convert(options: ConvertOptions, console: Console) -> ExitCode:
    """Turn a published vidt_*.pth into a weight file of vtk detect, or the other way round.

    Every tensor must find its place: only parameters that the published network never uses are dropped, and named.
    """
    from vtk_cli.detect.use import convert_file

    return convert_file(options, console)


def bench(options: BenchOptions, console: Console) -> ExitCode:
    """Measure a detector's latency: median and 95th percentile, fp32 and bf16, with and without post-processing."""
    from vtk_cli.detect.latency import bench_model

    return bench_model(options, console)


app = new_app("Train and use transformer detectors: ViDT and ViDT+.")
add_command(
    app,
    TrainOptions,
    launched(train),
    name="train",
    epilog="Examples:  vtk detect train   ·   vtk detect train coco/ --model vidt-plus-tiny   ·  "
    " vtk detect train my-yolo/ --weights vidt_plus_nano_det300.pth   ·  "
    " vtk detect train coco/ --backbone resnet50   ·   vtk detect train --resume RUN",
)
add_command(
    app,
    EvalOptions,
    launched(evaluate),
    name="eval",
    epilog="Examples:  vtk detect eval RUN   ·   vtk detect eval vidt_plus_tiny_det300.pth coco/ -o evaluation",
)
add_command(
    app,
    PredictOptions,
    predict,
    name="predict",
    epilog="Examples:  vtk detect predict photos/ --save-json   ·   vtk detect predict street.mp4 --classes car",
)
add_command(
    app,
    ExportOptions,
    export,
    name="export",
    epilog="Examples:  vtk detect export RUN   ·   vtk detect export RUN --size 640 --batch 1",
)
add_command(
    app, ConvertOptions, convert, name="convert", epilog="Examples:  vtk detect convert vidt_plus_nano_det300.pth"
)
add_command(
    app,
    BenchOptions,
    bench,
    name="bench",
    epilog="Examples:  vtk detect bench vidt-nano --size 640   ·   vtk detect bench RUN",
)
add_recipes(
    app,
    "detect",
    RecipeTable("vtk detect train", "--recipe", RECIPES, recipe_source, {"epochs": "epochs", "size": "pixels"}),
)
