"""`vtk adapt`: the face of its verbs. Options in, result out; the story of a run is in `job.py`."""

from __future__ import annotations

from vtk_cli.adapt.recipes import PRESETS, RECIPES, about
from vtk_cli.adapt.verb_options import (
    CompareOptions,
    EvaluateOptions,
    ExportOptions,
    LabelOptions,
    PredictOptions,
    QueryOptions,
    StartOptions,
    StatusOptions,
    TrainOptions,
    UndoOptions,
)
from vtk_cli.console import Console
from vtk_cli.engine.processes.launch import launched
from vtk_cli.engine.recipe_verb import RecipeTable, add_recipes
from vtk_cli.errors import ExitCode
from vtk_cli.options import add_command, new_app


def start(options: StartOptions, console: Console) -> ExitCode:
    """Begin: train a classifier on a labelled source, move it to an unlabelled target as far as that goes by itself.

    After it, `query` says which few target images to label, `label` takes the answers, `train` learns from them in
    stages (arXiv 2204.11665): labelled target alone, then pseudo-labelled target with information maximisation. The run
    is a folder: every step can be stopped and made again, and nothing is asked twice.
    """
    from vtk_cli.adapt.job import start as begin

    return begin(options, console)


def query(options: QueryOptions, console: Console) -> ExitCode:
    """Say which images to label: a table to fill in, contact sheets, a page to label on that needs no network.

    Asked again before the answers are in, it says the same.
    """
    from vtk_cli.adapt.turns import query as ask

    return ask(options, console)


def label(options: LabelOptions, console: Console) -> ExitCode:
    """Take labels back: class names or numbers; ? puts an image back, bad takes it out, other is none of the classes.

    Files may be partial and may come again. One wrong line, and nothing of the file is taken.
    """
    from vtk_cli.adapt.turns import label as take

    return take(options, console)


def train(options: TrainOptions, console: Console) -> ExitCode:
    """Learn from the answers of the round, and measure."""
    from vtk_cli.adapt.turns import train as learn

    return learn(options, console)


def status(options: StatusOptions, console: Console) -> ExitCode:
    """Show where a run stands and what to type next; with --suspicious, the labels that the model believes least."""
    from vtk_cli.adapt.use import status as show

    return show(options, console)


def evaluate(options: EvaluateOptions, console: Console) -> ExitCode:
    """Measure the model of a run: on target images without label, on the whole target, on others."""
    from vtk_cli.adapt.use import evaluate as measure

    return measure(options, console)


def predict(options: PredictOptions, console: Console) -> ExitCode:
    """Write the class of every image in a folder."""
    from vtk_cli.adapt.use import predict as look

    return look(options, console)


def undo(options: UndoOptions, console: Console) -> ExitCode:
    """Take the last round back: its question, its answers, its model."""
    from vtk_cli.adapt.turns import undo as back

    return back(options, console)


def run(options: StartOptions, console: Console) -> ExitCode:
    """Make all rounds at once with a simulated person, who answers from the target's labels what is asked.

    Without data, from the embedded digits to digits on photos, in about half a minute.
    """
    from vtk_cli.adapt.job import run_simulated

    return run_simulated(options, console)


def compare(options: CompareOptions, console: Console) -> ExitCode:
    """Simulate ways to train x strategies x seeds x budgets, and draw accuracy against labels.

    Every run is a piece of work by itself: kept once it is finished, and shared among processes.
    """
    from vtk_cli.adapt.comparison import compare as compare_all

    return compare_all(options, console)


def export(options: ExportOptions, console: Console) -> ExitCode:
    """Write the adapted network as a plain one that vtk and timm read, or as TL-ADA's checkpoint."""
    from vtk_cli.adapt.use import export as write

    return write(options, console)


app = new_app()
add_command(
    app,
    StartOptions,
    launched(start),
    name="start",
    epilog="Examples:  vtk adapt start RUN --source studio/ --target shop/ --budget 5%   ·  "
    " vtk adapt start RUN --model source.safetensors --target shop/ --budget 40",
)
add_command(app, QueryOptions, query, name="query", epilog="Examples:  vtk adapt query RUN --blind")
add_command(
    app,
    LabelOptions,
    label,
    name="label",
    epilog="Examples:  vtk adapt label RUN query.csv   ·   vtk adapt label RUN --from-folders sorted/",
)
add_command(app, TrainOptions, launched(train), name="train", epilog="Examples:  vtk adapt train RUN")
add_command(app, StatusOptions, status, name="status", epilog="Examples:  vtk adapt status RUN --suspicious 20")
add_command(app, EvaluateOptions, evaluate, name="evaluate", epilog="Examples:  vtk adapt evaluate RUN --data test/")
add_command(app, PredictOptions, predict, name="predict", epilog="Examples:  vtk adapt predict RUN new/ --to new.csv")
add_command(app, UndoOptions, undo, name="undo", epilog="Examples:  vtk adapt undo RUN")
add_command(
    app,
    StartOptions,
    launched(run),
    name="run",
    epilog="Examples:  vtk adapt run   ·   vtk adapt run --source art/ --target clipart/ --preset office-home",
)
add_command(
    app,
    CompareOptions,
    compare,
    name="compare",
    epilog="Examples:  vtk adapt compare --recipes joint,sequential --queries random,loss --seeds 0-2 --budget 10%"
    " --devices cpu,cpu",
)
add_command(app, ExportOptions, export, name="export", epilog="Examples:  vtk adapt export RUN model.safetensors")
add_recipes(
    app,
    "adapt",
    RecipeTable("vtk adapt start", "--recipe", {name: {} for name in RECIPES}, RECIPES.__getitem__),
    RecipeTable("vtk adapt start", "--preset", PRESETS, about, {"budget": "labels"}),
)
