"""`vtk search ... --dry-run`: what would be done, with nothing trained or written."""

from __future__ import annotations

from collections.abc import Mapping

from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.parallel_options import ParallelOptions
from vtk_cli.engine.processes.process_plan import process_plan
from vtk_cli.models.spaces.cost import in_millions
from vtk_cli.search.evolution_stage import Budget
from vtk_cli.search.judgement import Judgement
from vtk_cli.search.supernet_stage import Prepared
from vtk_cli.search.verb_options import EvolveOptions, ImportOptions, SearchOptions

Rows = list[tuple[str, str]]


def show_plan(rows: Rows, config: Mapping[str, object], console: Console) -> None:
    """Print a plan."""
    console.table("Plan", ("", ""), rows)
    console.emit({**{name.replace(" ", "_"): value for name, value in rows}, "config": dict(config)})


def supernet_rows(options: SearchOptions | ImportOptions, prepared: Prepared, world: World) -> Rows:
    """Of the training of a supernet.

    Raises:
        UserError: the processes cannot share a batch equally.
    """
    halves, space = prepared.images.halves, prepared.space
    return [
        ("space", f"{space.name}, {space.size:,} architectures"),
        ("images", f"{len(halves.train):,} to train on, {len(halves.valid):,} to judge on, {prepared.images.size} px"),
        ("supernet", f"{options.epochs} epochs of batches of {options.batch_size}, paths: {options.sampler}"),
        *process_rows(options, world, options.batch_size),
    ]


def process_rows(options: ParallelOptions, world: World, batch_size: int) -> Rows:
    """How many processes there are, what of a batch each gets, and what each holds.

    Raises:
        UserError: they cannot share a batch equally.
    """
    return [(name.replace("_", " "), str(value)) for name, value in process_plan(options, world, batch_size).items()]


def search_rows(options: SearchOptions | EvolveOptions, budget: Budget) -> Rows:
    """Of an evolution."""
    attainable = budget.space.cost_range(budget.shape)
    span = " to ".join(in_millions(end) for end in attainable.macs)
    return [
        ("judged by", judged_by(options.judgement)),
        ("evolution", f"{options.generations} generations of {options.population} architectures"),
        ("cost", f"{span} multiply-accumulates as {budget.shape.form}, {budget.shape.resolution} px"),
        ("limits", _limits(options)),
    ]


def judged_by(judgement: Judgement) -> str:
    """The score and what a measurement takes."""
    passes = {"clean": 1, "noise": 1 + judgement.settings.draws * len(judgement.settings.sigmas), "angle": 0}
    count = max(passes[kind] for kind in judgement.needs)
    return f"{judgement.name}, {count} passes over the images each"


def _limits(options: SearchOptions | EvolveOptions) -> str:
    given = {
        "at most": options.max_flops,
        "at least": options.min_flops,
    }
    words = [f"{name} {in_millions(value)} multiply-accumulates" for name, value in given.items() if value is not None]
    words += [f"at most {in_millions(options.max_params)} parameters"] if options.max_params is not None else []
    words += [f"at most {options.max_latency:g} ms an image"] if options.max_latency is not None else []
    return ", ".join(words) or "none"
