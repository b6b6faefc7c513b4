"""`vtk search retrain`: one architecture, trained by itself from scratch."""

from __future__ import annotations

import shlex
import sys

from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World, join_world, shared_run
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.errors import ExitCode
from vtk_cli.models.spaces.architecture import Architecture, write_architecture
from vtk_cli.models.spaces.cost import in_millions
from vtk_cli.models.spaces.space import Shape
from vtk_cli.reports import page
from vtk_cli.reports.training import Panel, draw_training
from vtk_cli.search.drawing import draw_architecture
from vtk_cli.search.images import open_search_images
from vtk_cli.search.outcome import ARCHITECTURE, PAGE
from vtk_cli.search.plan import process_rows, show_plan
from vtk_cli.search.retraining import Retrained, retrain
from vtk_cli.search.showing import named_architecture
from vtk_cli.search.verb_options import RetrainVerbOptions
from vtk_cli.search.winner import fitted

_MAY_CHANGE = {"device", "workers", "checkpoint-seconds", "skip-nonfinite", "parallel"}
PANELS = (
    Panel("training loss", {"loss": "training"}, best=-1),
    Panel("validation top-1, %", {"top1": "top-1", "ema_top1": "averaged"}, best=1, factor=100),
    Panel("learning rate", {"lr": "learning rate"}),
)


def retrain_architecture(options: RetrainVerbOptions, console: Console) -> ExitCode:
    """Train an architecture from scratch, or tell the plan.

    Raises:
        UserError: architecture, options and images do not go together.
        JobError: the loss is not finite, or the disk is full; the last checkpoint stays.
        Preempted, KeyboardInterrupt: a signal came; the state is saved.
    """
    architecture = named_architecture(options.architecture, options.space)
    with join_world(options.device, options.parallel) as world:
        face = console if world.is_main else Console(quiet=True)
        shape = _shape(options, architecture, face)
        if options.dry_run:
            world.on_main(lambda: show_plan(_plan(options, architecture, shape, world), options.as_config(), face))
            return ExitCode.DONE
        name = f"{options.data_name}-{architecture.space.name}"
        with shared_run(world, "search retrain", name, options, face, may_change=_MAY_CHANGE) as run:
            space, genes = architecture.space, architecture.genes
            retrained = retrain(
                options, space, genes, shape, world=world, console=face, run=run, sync_bn=options.sync_bn
            )
            world.on_main(lambda: _conclude(options, architecture, shape, retrained, run=run, console=face))
    return ExitCode.DONE


def _shape(options: RetrainVerbOptions, architecture: Architecture, console: Console) -> Shape:
    form = options.form or architecture.form
    own = architecture.space.forms[form or architecture.space.alone].resolution
    channels = architecture.space.input_channels
    side = options.size or architecture.resolution or own
    images = open_search_images(options, size=side, channels=channels, console=console, whole=True)
    shape = architecture.shape(
        form=form, classes=images.classes, resolution=side, width=options.width, cells=options.cells
    )
    if options.fit_width is None:
        return shape
    return fitted(architecture.space, architecture.genes, shape, options.fit_width)


def _plan(options: RetrainVerbOptions, architecture: Architecture, shape: Shape, world: World) -> list[tuple[str, str]]:
    cost = architecture.space.cost(architecture.genes, shape)
    return [
        ("architecture", architecture.space.format(architecture.genes)),
        ("network", f"{shape.form}, {in_millions(cost.macs)} multiply-accumulates, {in_millions(cost.params)} weights"),
        ("training", f"{options.epochs} epochs of batches of {options.batch_size} ({options.recipe})"),
        *process_rows(options, world, options.batch_size),
    ]


def _conclude(
    options: RetrainVerbOptions,
    architecture: Architecture,
    shape: Shape,
    retrained: Retrained,
    *,
    run: RunFolder,
    console: Console,
) -> None:
    write_architecture(run.path / ARCHITECTURE, architecture, shape)
    text = architecture.space.format(architecture.genes)
    drawing = draw_architecture(run.plots / "architecture", architecture.space, architecture.genes, shape)
    curves = draw_training(run.plots / "training", retrained.result.history, PANELS, title=f"Training {text}")
    headline: dict[str, object] = {
        "multiply-accumulates": in_millions(retrained.cost.macs),
        "parameters": in_millions(retrained.cost.params),
    }
    if retrained.evaluation is not None:
        found = retrained.evaluation.scalars()
        headline = {"top-1": f"{found['top1']:.2%}", **headline}
        console.text(f"{found['top1']:.2%} of {retrained.evaluation.n:,} validation images right")
    sections = [
        page.Section("Training", [page.Image(curves.svg, "loss, accuracy and learning rate by epoch")]),
        page.Section("Architecture", [page.Image(drawing.svg, text)]),
        page.Section("Options", [page.Table(("", ""), [(name, str(v)) for name, v in options.as_config().items()])]),
    ]
    content = page.Page(f"{architecture.space.name} {text}", options.data_name, headline, sections, " ".join(sys.argv))
    page.write_page(run.path / PAGE, content)
    summary = {**architecture.as_json(shape), **retrained.summary()}
    run.finish(summary)
    data = "" if options.on_digits else shlex.quote(options.data)
    console.text(f"Use it: vtk train eval {retrained.weights} {data}".rstrip())
    console.text(f"Look at {run.path / PAGE}")
    console.emit(summary)
