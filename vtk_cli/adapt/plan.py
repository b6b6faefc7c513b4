"""`vtk adapt start --dry-run`: what would be done, with nothing trained or written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vtk_cli.adapt.budget import round_sizes
from vtk_cli.adapt.preparation import first_network, read_domains
from vtk_cli.adapt.rounds import plan_run
from vtk_cli.adapt.verb_options import StartOptions
from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.parallel_options import ParallelOptions


def show_plan(options: StartOptions, world: World, console: Console) -> None:
    """Print it: the data are opened and the network is built; no weights are fetched, no image is decoded.

    Raises:
        UserError: data and options do not go together.
    """
    domains, _ = read_domains(options, console, ())
    total, rounds = plan_run(options, len(domains.pool), len(domains.class_names), console)
    scratch = replace(options, weights="scratch") if options.model is None else options
    network, knows_source = first_network(scratch, domains.class_names, console)
    method, training = options.method, options.source_training
    source = 0 if domains.source is None else len(domains.source)
    batches = -(-len(domains.pool) // options.batch)
    source_batches = -(-source // options.batch)
    first = 0 if options.recipe in {"joint", "labelled"} else method.unlabelled_length(batches, source_batches, 0)
    summary: dict[str, Any] = {
        "network": network.origin.architecture,
        "parameters": sum(one.numel() for one in network.parameters()),
        "classes": len(domains.class_names),
        "source_images": source,
        "target_images": len(domains.pool),
        "test_images": 0 if domains.test is None else len(domains.test),
        "target_labels": "known" if domains.is_labelled else f"{len(domains.truth)} known",
        "source_updates": 0 if knows_source else training.epochs * -(-source // training.batch_size),
        "first_updates": first,
        "recipe": options.recipe,
        "query": options.query,
        "labels": total,
        "rounds": ", ".join(map(str, round_sizes(total, rounds))),
        "audit": options.audit,
        **shared_by(options, world),
    }
    rows = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else value) for name, value in summary.items()
    ]
    place = ("would be written to", options.out or "a new folder in runs")
    console.table("Plan", ("", "value"), [*rows, place])
    console.emit({**summary, "config": options.as_config()})


def shared_by(options: ParallelOptions, world: World) -> dict[str, Any]:
    """How many processes there are, and what each holds; batches of any size are shared."""
    count = world.size if world.size > 1 else options.nproc or 1
    holds = f"1/{count} of the weights" if options.parallel == "fsdp" else "all weights"
    return {"processes": count} | ({"each_holds": holds} if count > 1 else {})
