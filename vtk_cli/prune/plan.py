"""`vtk prune run --dry-run`: what would be done, with nothing trained or written."""

from __future__ import annotations

from typing import Any

from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World
from vtk_cli.prune.counts import FEW, counts
from vtk_cli.prune.data import open_data
from vtk_cli.prune.keeping import kept_of
from vtk_cli.prune.masking import prunable
from vtk_cli.prune.preparation import initial_generator
from vtk_cli.prune.schedule import stretches
from vtk_cli.prune.verb_options import RunVerbOptions
from vtk_cli.prune.weights import WeightRule


def show_plan(options: RunVerbOptions, world: World, console: Console) -> None:
    """Print it: the images are opened and the generator is built, no network is fetched or trained.

    Raises:
        UserError: images and options do not go together.
    """
    splits = open_data(
        options.data,
        size=options.image_size,
        channels=options.channels,
        eval_data=options.eval_data,
        holdout=options.holdout,
        console=console,
    )
    generator = initial_generator(options, WeightRule(options.weight_init, options.seed))
    layers = prunable(generator)
    weights = counts(generator).n
    count, length = stretches(options.steps, options.every)
    summary: dict[str, Any] = {
        "generator": f"{generator.name}, {generator.image_size} px, nz {generator.nz}, ngf {generator.ngf}",
        "layers": len(layers),
        "weights": weights,
        "algorithm": options.algo,
        "keep": float(options.kept),
        "scope": options.scope,
        "kept": weights if options.algo == "dense" else kept_of(weights, options.kept),
        "weights_from": str(options.theta) if options.theta else f"{options.weight_init}, seed {options.seed}",
        "train_images": len(splits.train),
        "held_out_images": len(splits.held_out),
        "extractor": options.extractor,
        "averaging": f"{options.averaging}, {options.rate:g}",
        "steps": 0 if options.algo == "random" else count * length,
        "batch": options.batch,
        "measured_with": f"{options.embedder}, {options.samples:,} samples",
        "processes": processes_of(options, world),
    }
    rows = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else value) for name, value in summary.items()
    ]
    place = ("would be written to", options.out or "a new folder in runs/prune-run")
    console.table("Plan", ("", "value"), [*rows, place])
    if summary["kept"] < min(FEW, summary["weights"]):
        console.warn(f"only {summary['kept']} weights would be kept; strong tickets need more: widen it (--ngf)")
    console.emit({**summary, "config": options.as_config()})


def processes_of(options: RunVerbOptions, world: World) -> int:
    """How many processes there are, or that a plan does not start."""
    return world.size if world.size > 1 else options.nproc or 1
