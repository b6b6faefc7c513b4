"""`vtk prune`: the face of its verbs. Options in, result out; the story of a search is in `job.py`."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.engine.processes.launch import launched
from vtk_cli.engine.recipe_verb import RecipeTable, add_recipes
from vtk_cli.errors import ExitCode
from vtk_cli.options import add_command, new_app
from vtk_cli.prune.recipes import RECIPES, recipe_source
from vtk_cli.prune.verb_options import (
    ApplyOptions,
    EvaluateOptions,
    ExportVerbOptions,
    InfoOptions,
    RunVerbOptions,
    SampleOptions,
    SweepOptions,
    VerifyOptions,
)


def run(options: RunVerbOptions, console: Console) -> ExitCode:
    """Find a ticket: a small part of a random generator's weights that makes images without any training of weights.

    The weights stay as they were drawn (arXiv 2212.08311). What is searched for is which of them to keep (edge-popup,
    arXiv 1911.13299, or Gem-Miner, arXiv 2202.12002), so that features of generated images have the means and variances
    that they have over the real ones (arXiv 1904.02762); there is no discriminator. The result is one small file: a
    seed, about half a bit a weight, and the statistics of batch normalisation.

    Without DATA a tiny generator learns the embedded digits, in about 20 seconds.
    """
    from vtk_cli.prune.job import search_ticket

    return search_ticket(options, console)


def apply(options: ApplyOptions, console: Console) -> ExitCode:
    """Rebuild the very network of a ticket, compared with the ticket's sum, and write it as a plain generator."""
    from vtk_cli.prune.use import apply_ticket

    return apply_ticket(options, console)


def info(options: InfoOptions, console: Console) -> ExitCode:
    """Show what a ticket is: layer by layer how much is kept, what it weighs in every form, what was measured."""
    from vtk_cli.prune.use import show_ticket

    return show_ticket(options, console)


def verify(options: VerifyOptions, console: Console) -> ExitCode:
    """Hold a ticket to all that it says of itself; exit code 1 where something does not hold."""
    from vtk_cli.prune.use import verify_ticket

    return verify_ticket(options, console)


def sample(options: SampleOptions, console: Console) -> ExitCode:
    """Write a picture of generated images."""
    from vtk_cli.prune.use import write_samples

    return write_samples(options, console)


def export(options: ExportVerbOptions, console: Console) -> ExitCode:
    """Write a generator for others: plain, sparse, in two bits a weight, for torch.nn.utils.prune, or as ONNX.

    Every file is read back and compared.
    """
    from vtk_cli.prune.use import export_model

    return export_model(options, console)


def evaluate(options: EvaluateOptions, console: Console) -> ExitCode:
    """Measure a generator: Frechet and kernel distance, precision, recall, density, coverage; on what and on how many.

    FID is printed for Inception's published weights alone (--inception FILE), whose checksum is known; any other
    embedder gives FD(NAME).
    """
    from vtk_cli.prune.use import evaluate_model

    return evaluate_model(options, console)


def sweep(options: SweepOptions, console: Console) -> ExitCode:
    """Search at several fractions, by several ways and from several seeds; dense and random masks in the same picture.

    Every search is a piece of work by itself: kept once it is finished, and shared among processes.
    """
    from vtk_cli.prune.sweep import sweep as sweep_fractions

    return sweep_fractions(options, console)


app = new_app()
add_command(
    app,
    RunVerbOptions,
    launched(run),
    name="run",
    epilog="Examples:  vtk prune run   ·   vtk prune run --keep 0.3 --scope layer --baselines all   ·  "
    " vtk prune run celeba/ --recipe sngan-celeba --inception pt_inception-2015-12-05-6726825d.pth",
)
add_command(app, ApplyOptions, apply, name="apply", epilog="Examples:  vtk prune apply runs/prune-run/RUN/ticket.vtkt")
add_command(app, InfoOptions, info, name="info", epilog="Examples:  vtk prune info ticket.vtkt")
add_command(app, VerifyOptions, verify, name="verify", epilog="Examples:  vtk prune verify ticket.vtkt")
add_command(
    app,
    SampleOptions,
    sample,
    name="sample",
    epilog="Examples:  vtk prune sample ticket.vtkt   ·   vtk prune sample RUN -n 100 --seed 7 -o grid.png",
)
add_command(
    app,
    ExportVerbOptions,
    export,
    name="export",
    epilog="Examples:  vtk prune export ticket.vtkt --form csr --form onnx",
)
add_command(
    app,
    EvaluateOptions,
    evaluate,
    name="evaluate",
    epilog="Examples:  vtk prune evaluate ticket.vtkt digits --eval-embedder digits-cnn   ·  "
    " vtk prune evaluate RUN celeba/ --inception pt_inception-2015-12-05-6726825d.pth",
)
add_command(
    app,
    SweepOptions,
    sweep,
    name="sweep",
    epilog="Examples:  vtk prune sweep   ·   vtk prune sweep --algos edge-popup --algos gem-miner --scopes global"
    " --scopes layer --devices 0,1,2,3",
)
add_recipes(
    app,
    "prune",
    RecipeTable("vtk prune run", "--recipe", RECIPES, recipe_source, {"image_size": "pixels", "steps": "steps"}),
)
