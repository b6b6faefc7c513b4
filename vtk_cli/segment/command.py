"""`vtk segment`: the face of its verbs. Options in, result out; the story of a run is in `job.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtk_cli.console import Console
from vtk_cli.engine.processes.launch import launched
from vtk_cli.engine.processes.parallel_options import Parallel, ProcessOptions
from vtk_cli.engine.recipe_verb import RecipeTable, add_recipes
from vtk_cli.errors import ExitCode
from vtk_cli.options import SpeechOptions, add_command, new_app, option
from vtk_cli.segment.options import SegmentOptions, StageName
from vtk_cli.segment.recipes import RECIPES, recipe_source

_MODEL_HELP = "A run folder, a weight file of vtk segment, or published SOLOv2 weights (mmdet, AdelaiDet)."
_BEST_HELP = "Of a run: the weights that did best on its --val images, not those of the end."
_ROUND_HELP = "Of a run of several rounds, which: round-2, ema-1 ... [default: the first]."


@dataclass(frozen=True, kw_only=True)
class StageOptions(ProcessOptions):
    """One stage by itself."""

    run: Path | None = option(None, "The folder of a run, with its options.", positional=True, metavar="RUN")
    redo: bool = option(
        False, "Make it again; what depends on it is made again afterwards.", panel="Stages", recorded=False
    )
    round: str = option("", _ROUND_HELP, panel="Stages", metavar="NAME")
    parallel: Parallel | None = option(
        None, "What each process holds of the weights [default: as in the run].", panel="Scale"
    )


@dataclass(frozen=True, kw_only=True)
class _UseOptions(SpeechOptions):
    """What everything that uses a trained network is told."""

    which: Literal["student", "teacher"] = option("student", "Of a run: whose weights.", panel="Network")
    best: bool = option(False, _BEST_HELP, panel="Network")
    size: int | None = option(
        None, "The shorter side of an image [default: as trained].", panel="Network", metavar="N", minimum=32
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("fp32", "Arithmetic.", panel="Run")
    workers: int | None = option(
        None, "Processes that read images [default: one a core, at most 8].", panel="Run", metavar="N", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(_UseOptions, ProcessOptions):
    """`vtk segment eval`."""

    model: str = option("", _MODEL_HELP, positional=True, metavar="MODEL")
    data: Path | None = option(None, "Fully labelled images: COCO JSON.", positional=True, metavar="JSON")
    images: Path | None = option(None, "The folder of the images [default: beside the file].", panel="Data")
    prompt: Literal["none", "point", "classes"] = option(
        "none",
        "What the network is told: nothing (this is detection), a click on every object, or the classes of an image.",
        panel="Data",
    )
    skip_bad: bool = option(False, "Leave wrong entries out, with their count.", panel="Data")
    out: Path | None = option(
        None, "Write evaluation.json, results.json (COCO's format) and a page there.", panel="Run", short="-o"
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(_UseOptions):
    """`vtk segment predict`."""

    images: tuple[str, ...] = option(
        (), "Images, folders or patterns such as 'photos/*.jpg'.", positional=True, metavar="IMAGES"
    )
    model: str = option(
        "", f"{_MODEL_HELP} [default: the newest run in runs/segment-run]", panel="Network", metavar="MODEL"
    )
    conf: float = option(0.3, "Least score that is shown.", panel="Output", minimum=0, maximum=1)
    save_masks: bool = option(False, "A PNG a mask, white on black.", panel="Output")
    save_txt: bool = option(
        False, "A text file an image, in YOLO's format: class and polygon, in shares of the image.", panel="Output"
    )
    out: Path = option(Path("predictions"), "Where the pictures and files go.", panel="Run", short="-o", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class ExportOptions(SpeechOptions):
    """`vtk segment export`."""

    model: str = option("", _MODEL_HELP, positional=True, metavar="MODEL")
    best: bool = option(False, _BEST_HELP, panel="Network")
    size: tuple[int, ...] = option(
        (),
        "Height and width of the padded images, given twice, or one side of a square [default: as trained].",
        panel="Export",
        metavar="N",
    )
    batch: int | None = option(None, "Images at a time [default: any number].", panel="Export", metavar="N", minimum=1)
    tolerance: float = option(
        1e-4, "Largest difference of a number, as a share of the largest.", panel="Export", above=0
    )
    out: Path | None = option(
        None, "The folder [default: that of the weights].", panel="Run", short="-o", metavar="DIR"
    )


@dataclass(frozen=True, kw_only=True)
class PreviewOptions(SpeechOptions):
    """`vtk segment preview`."""

    run: Path | None = option(None, "The folder of a run.", positional=True, metavar="RUN")
    round: str = option("", _ROUND_HELP, panel="Output", metavar="NAME")
    order: Literal["score", "iou", "flags"] = option("score", "Which labels come first.", panel="Output")
    count: int = option(96, "Labels that are shown at most.", panel="Output", minimum=1)
    missing: bool = option(
        False, "Also what the teacher is sure of and nobody clicked; it looks at every image.", panel="Output"
    )
    export: Literal["none", "labelme", "coco"] = option(
        "none", "Also files to correct in a labelling tool.", panel="Output"
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    out: Path | None = option(None, "The folder [default: RUN/preview].", panel="Run", short="-o", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class PointsOptions(SpeechOptions):
    """`vtk segment points make`."""

    data: Path | None = option(None, "COCO JSON with masks.", positional=True, metavar="JSON")
    mode: Literal["centroid", "random", "inside"] = option(
        "random", "The centroid, any pixel of the mask, or its pixel nearest the centroid.", panel="Points"
    )
    seed: int = option(0, "Seed of random.", panel="Points", minimum=0)
    images: Path | None = option(None, "The folder of the images [default: beside the file].", panel="Points")
    skip_bad: bool = option(False, "Leave wrong entries out, with their count.", panel="Points")
    out: Path | None = option(None, "The file: .json (COCO) or .csv.", panel="Output", short="-o", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class SplitOptions(SpeechOptions):
    """`vtk segment split make`."""

    data: Path | None = option(None, "COCO JSON with masks.", positional=True, metavar="JSON")
    fraction: float = option(0.1, "Share of fully labelled images.", panel="Split", above=0, maximum=1)
    seed: int = option(0, "Seed of the draw; splits of one seed are nested.", panel="Split", minimum=0)
    stratify: int = option(
        0, "At least so many objects of every class in the fully labelled part.", panel="Split", minimum=0
    )
    out: Path | None = option(None, "The folder [default: that of the file].", panel="Output", short="-o")


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(SpeechOptions):
    """`vtk segment budget`."""

    data: Path | None = option(
        None, "COCO JSON that shows what an image holds [default: COCO's train2017].", positional=True, metavar="JSON"
    )
    hours: float | None = option(None, "What there is time for.", panel="Budget", metavar="H", above=0)
    number: int | None = option(
        None, "Images there are to label [default: those of the file].", panel="Budget", metavar="N", minimum=1
    )
    t_mask: float = option(79.2, "Seconds for a mask.", panel="Budget", minimum=0)
    t_box: float = option(7.0, "Seconds for a box.", panel="Budget", minimum=0)
    t_tag: float = option(
        1.0, "Seconds to say whether a class is there; 0 counts the drawing alone.", panel="Budget", minimum=0
    )
    t_first: float = option(2.4, "Seconds for the first click on a class.", panel="Budget", minimum=0)
    t_more: float = option(0.9, "Seconds for every further one.", panel="Budget", minimum=0)


@dataclass(frozen=True, kw_only=True)
class ImportOptions(SpeechOptions):
    """`vtk segment import`."""

    data: Path | None = option(
        None,
        "What a tool exported: LabelMe (a folder), CVAT (XML or COCO), Label Studio (JSON), YOLO, Pascal VOC.",
        positional=True,
        metavar="PATH",
    )
    images: Path | None = option(None, "The folder of the images [default: beside the file].", panel="Import")
    mixed: Literal["error", "points"] = option(
        "error", "Images of which some objects have a mask: refused, or taken as clicked.", panel="Import"
    )
    skip_bad: bool = option(False, "Leave wrong entries out, with their count.", panel="Import")
    out: Path = option(Path("labels"), "The folder for strong.json and weak.json.", panel="Output", short="-o")


def run(options: SegmentOptions, console: Console) -> ExitCode:
    """Segment with few masks and many clicks: PointWSSIS (arXiv 2303.15062), all six stages.

    A teacher learns the images that have masks (--strong); at the clicks of the others (--weak) it makes pseudo masks,
    which a MaskRefineNet refines; a student learns from all. Stages that are done are passed over. Without data it
    learns the digits in the embedded scenes, of which a tenth have masks.
    """
    from vtk_cli.segment.job import run_stages

    return run_stages(options, console)


def evaluate(options: EvalOptions, console: Console) -> ExitCode:
    """Evaluate a trained network as COCO does, masks: by itself, or told the clicks or the classes."""
    from vtk_cli.segment.use import evaluate_model

    return evaluate_model(options, console)


def predict(options: PredictOptions, console: Console) -> ExitCode:
    """Find objects with their masks in images, draw them, and write them as COCO results."""
    from vtk_cli.segment.use import predict_images

    return predict_images(options, console)


def export(options: ExportOptions, console: Console) -> ExitCode:
    """Write a trained student as ONNX, with its suppression; read it back in onnxruntime and compare."""
    from vtk_cli.segment.use import export_model

    return export_model(options, console)


def preview(options: PreviewOptions, console: Console) -> ExitCode:
    """Look at pseudo labels before a student learns from them: contact sheets and a page, unresolved clicks first."""
    from vtk_cli.segment.use import preview_run

    return preview_run(options, console)


def make_points(options: PointsOptions, console: Console) -> ExitCode:
    """Make clicks from masks: what a person would have clicked who draws none."""
    from vtk_cli.segment.labels.use import points_from_masks

    return points_from_masks(options, console)


def make_split(options: SplitOptions, console: Console) -> ExitCode:
    """Part a data set into fully labelled and clicked images, by seed."""
    from vtk_cli.segment.labels.use import split_data

    return split_data(options, console)


def budget(options: BudgetOptions, console: Console) -> ExitCode:
    """What labels cost, and how many masks and clicks some hours suffice for."""
    from vtk_cli.segment.labels.use import plan_budget

    return plan_budget(options, console)


def import_labels(options: ImportOptions, console: Console) -> ExitCode:
    """Turn what a labelling tool exported into strong.json and weak.json."""
    from vtk_cli.segment.labels.use import import_data

    return import_data(options, console)


def _stage(name: StageName) -> Callable[[StageOptions, Console], ExitCode]:
    def make(options: StageOptions, console: Console) -> ExitCode:
        from vtk_cli.segment.use import make_stage

        return make_stage(name, options, console)

    return make


_STAGES: dict[StageName, str] = {
    "teacher": "Train the teacher of a run on the fully labelled images.",
    "pseudo": "Make pseudo labels: the teacher's masks at the clicks.",
    "rough": "Make rough masks of the fully labelled images.",
    "refine": "Train the MaskRefineNet.",
    "merge": "Refine the pseudo labels and join them with the full ones.",
    "student": "Train the student on all labels.",
}

app = new_app("Segment instances with few masks and many clicks: PointWSSIS.")
add_command(
    app,
    SegmentOptions,
    launched(run),
    name="run",
    epilog="Examples:  vtk segment run   ·   vtk segment run --strong s.json --weak w.json --val v.json --out RUN"
    "   ·   vtk segment run --resume RUN   ·   vtk segment run --strong s.json --weak w.csv --until merge",
)
for _name, _help in _STAGES.items():
    add_command(
        app,
        StageOptions,
        launched(_stage(_name)),
        name=_name,
        help=_help,
        epilog=f"Examples:  vtk segment {_name} RUN --redo",
    )
add_command(
    app,
    EvalOptions,
    launched(evaluate),
    name="eval",
    epilog="Examples:  vtk segment eval RUN val.json   ·   vtk segment eval RUN val.json --prompt point",
)
add_command(app, PredictOptions, predict, name="predict", epilog="Examples:  vtk segment predict photos/ --model RUN")
add_command(
    app,
    ExportOptions,
    export,
    name="export",
    epilog="Examples:  vtk segment export RUN   ·   vtk segment export RUN --size 800 --size 1344 --batch 1",
)
add_command(
    app,
    PreviewOptions,
    preview,
    name="preview",
    epilog="Examples:  vtk segment preview RUN --order iou   ·   vtk segment preview RUN --export labelme",
)
add_command(
    app,
    BudgetOptions,
    budget,
    name="budget",
    epilog="Examples:  vtk segment budget --hours 200   ·   vtk segment budget labels.json --number 5000 --hours 40",
)
add_command(app, ImportOptions, import_labels, name="import", epilog="Examples:  vtk segment import labelme/ -o labels")
add_recipes(
    app,
    "segment",
    RecipeTable("vtk segment run", "--recipe", RECIPES, recipe_source, {"student_steps": "steps", "size": "pixels"}),
)
_points = new_app("Make clicks.")
_points.callback()(lambda: None)
add_command(
    _points,
    PointsOptions,
    make_points,
    name="make",
    epilog="Examples:  vtk segment points make instances.json --mode inside -o clicks.csv",
)
app.add_typer(_points, name="points", help="Make clicks from masks.")
_split = new_app("Part data sets.")
_split.callback()(lambda: None)
add_command(
    _split,
    SplitOptions,
    make_split,
    name="make",
    epilog="Examples:  vtk segment split make instances.json --fraction 0.05 -o splits",
)
app.add_typer(_split, name="split", help="Part a data set into fully labelled and clicked images.")
