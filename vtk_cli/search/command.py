"""`vtk search`: the face of its verbs. Options in, result out; the story of a search is in `job.py`."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.engine.processes.launch import launched
from vtk_cli.engine.recipe_verb import RecipeTable, add_recipes
from vtk_cli.errors import ExitCode
from vtk_cli.options import add_command, new_app
from vtk_cli.search.recipes import RECIPES, recipe_source
from vtk_cli.search.retrain_recipes import RETRAIN_RECIPES, retrain_recipe_source
from vtk_cli.search.verb_options import (
    EvolveOptions,
    ExportOptions,
    ImportOptions,
    RankOptions,
    RetrainVerbOptions,
    ScoreVerbOptions,
    SearchOptions,
    ShowOptions,
    SpacesOptions,
    TabulateOptions,
)


def run(options: SearchOptions, console: Console) -> ExitCode:
    """Find a network for images and a budget: supernet, scores, evolution, re-training.

    One network that holds the weights of all architectures is trained on half of the training images (arXiv
    1904.00420); architectures are judged with these weights on the other half, by how flat and deep the loss is around
    them (GeNAS, arXiv 2305.08611) or by another --score; evolution looks for the best within the limits; the winner is
    trained from scratch. Interrupted at any moment, the same command goes on.

    Without DATA the space is digits-mini on the embedded digits.
    """
    from vtk_cli.search.job import search

    return search(options, console)


def supernet(options: ImportOptions, console: Console) -> ExitCode:
    """Train the network whose weights all architectures of a space share, or take over a published one."""
    from vtk_cli.search.job import supernet_alone

    return supernet_alone(options, console)


def score(options: ScoreVerbOptions, console: Console) -> ExitCode:
    """Measure architectures with a trained supernet: flatness, loss, accuracy, angle, side by side."""
    from vtk_cli.search.scoring import score_architectures

    return score_architectures(options, console)


def evolve(options: EvolveOptions, console: Console) -> ExitCode:
    """Look for the best architecture within limits, with a trained supernet.

    Every architecture is measured once, by any number of processes: tasks of an array (--shard I/COUNT), of which the
    last assembles, or helpers of a search that runs (--shard queue).
    """
    from vtk_cli.search.job import evolve_alone

    return evolve_alone(options, console)


def retrain(options: RetrainVerbOptions, console: Console) -> ExitCode:
    """Train one architecture from scratch on all training images, as its authors did (--recipe)."""
    from vtk_cli.search.retrain_job import retrain_architecture

    return retrain_architecture(options, console)


def rank(options: RankOptions, console: Console) -> ExitCode:
    """Tell how well scores order architectures whose true accuracy a benchmark knows: Kendall tau and more.

    The benchmark is a table of `vtk search tabulate` or a file that you bring: NAS-Bench-201, NATS-Bench, NASLib.
    Pickles are read without running anything in them.
    """
    from vtk_cli.search.rank_job import rank_scores

    return rank_scores(options, console)


def tabulate(options: TabulateOptions, console: Console) -> ExitCode:
    """Train every architecture of a small space, or some, and write their accuracies for `vtk search rank`."""
    from vtk_cli.search.tabulating import tabulate as tabulate_space

    return tabulate_space(options, console)


def show(options: ShowOptions, console: Console) -> ExitCode:
    """Draw an architecture as PNG and SVG, and tell what it costs."""
    from vtk_cli.search.showing import show_architecture

    return show_architecture(options, console)


def export(options: ExportOptions, console: Console) -> ExitCode:
    """Write an architecture as a file that `vtk train` and `vtk detect` take as a network, with weights or without."""
    from vtk_cli.search.exporting import export_architecture

    return export_architecture(options, console)


def spaces(options: SpacesOptions, console: Console) -> ExitCode:
    """List the search spaces and the published architectures."""
    from vtk_cli.search.showing import show_spaces

    return show_spaces(options, console)


app = new_app()
add_command(
    app,
    SearchOptions,
    launched(run),
    name="run",
    epilog="Examples:  vtk search run   ·   vtk search run --max-flops 0.2M --score loss   ·  "
    " vtk search run torch/cifar10 --space darts --form cifar --max-flops 600M",
)
add_command(
    app,
    ImportOptions,
    launched(supernet),
    name="supernet",
    epilog="Examples:  vtk search supernet   ·   vtk search supernet torch/cifar10 --space nasbench201   ·  "
    " vtk search supernet torch/cifar100 --space darts --weights checkpoint_epoch_250.pth.tar",
)
add_command(
    app,
    ScoreVerbOptions,
    score,
    name="score",
    epilog="Examples:  vtk search score all   ·   vtk search score '2 0 3' '3 3 3'   ·  "
    " vtk search score random:100 --supernet RUN --devices 0,1,2,3",
)
add_command(
    app,
    EvolveOptions,
    evolve,
    name="evolve",
    epilog="Examples:  vtk search evolve   ·   vtk search evolve --supernet RUN --max-flops 600M --form imagenet   ·  "
    " vtk slurm submit --array 8 --gpus 1 -- search evolve --supernet RUN --out best",
)
add_command(
    app,
    RetrainVerbOptions,
    launched(retrain),
    name="retrain",
    epilog="Examples:  vtk search retrain '3 2 3' --space digits-mini   ·  "
    " vtk search retrain genas-flatness-cifar100 imagenet/ --fit-width 600M",
)
add_command(
    app,
    RankOptions,
    rank,
    name="rank",
    epilog="Examples:  vtk search rank runs/search-tabulate/RUN/benchmark.csv   ·  "
    " vtk search rank NATS-tss-v1_0-3ffb9-simple --dataset cifar100 --num-archs 500",
)
add_command(
    app,
    TabulateOptions,
    tabulate,
    name="tabulate",
    epilog="Examples:  vtk search tabulate   ·   vtk search tabulate --arch random:16 --seeds 1",
)
add_command(
    app,
    ShowOptions,
    show,
    name="show",
    epilog="Examples:  vtk search show genas-flatness-cifar100   ·   vtk search show '2 0 3' --space digits-mini",
)
add_command(
    app,
    ExportOptions,
    export,
    name="export",
    epilog="Examples:  vtk search export genas-flatness-cifar100   ·  "
    " vtk search export '2 0 3' --supernet runs/search-run/RUN",
)
add_command(app, SpacesOptions, spaces, name="spaces", epilog="Examples:  vtk search spaces")
_SHOWN = {"epochs": "epochs", "batch_size": "batch"}
add_recipes(
    app,
    "search",
    RecipeTable("vtk search run", "--recipe", RECIPES, recipe_source, _SHOWN),
    RecipeTable("vtk search retrain", "--recipe", RETRAIN_RECIPES, retrain_recipe_source, _SHOWN),
)
