"""What a search came to: files, tables and a page for people, `summary.json` for programs."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.engine.run_weights import LAST
from vtk_cli.prune.exports import Export, export_generator, frozen_weights
from vtk_cli.prune.generator_file import save_generator
from vtk_cli.prune.generator_source import TICKET
from vtk_cli.prune.options import TrialOptions
from vtk_cli.prune.preparation import Lab
from vtk_cli.prune.rebuilding import fill_weights
from vtk_cli.prune.report import Outcome, Report, comparison_rows, write_report
from vtk_cli.prune.ticket import Ticket
from vtk_cli.prune.ticket_file import write_ticket
from vtk_cli.prune.ticket_info import (
    LAYER_COLUMNS,
    NO_SPEED_UP,
    SIZE_COLUMNS,
    kept_shares,
    layer_rows,
    size_rows,
    sizes,
)
from vtk_cli.prune.trials import Settled, plain, with_metrics, without_samples
from vtk_cli.prune.verb_options import RunVerbOptions
from vtk_cli.prune.watching import Strips

_SHOWN = ("model", "kept, %", "distance", "precision", "recall")
"""What fits on a terminal."""


def conclude(
    options: RunVerbOptions, lab: Lab, outcome: Outcome, strips: Strips, *, run: RunFolder, console: Console
) -> None:
    """Write the files of a search and tell its result.

    Raises:
        JobError, UserError: the disk is full, or the folder may not be written.
    """
    settled = outcome.settled
    size = None
    if settled.ticket is not None:
        size = write_ticket(run.path / TICKET, with_metrics(settled.ticket, outcome.quality), options.codec)
    else:
        save_generator(run.path / LAST, settled.generator)
    exports = _exports(options, lab, settled, run)
    warnings = settled.counts.warnings() if settled.ticket is not None else []
    columns, rows = comparison_rows(outcome)
    summary = _summary(options, lab, outcome, run, size=size, exports=exports, warnings=warnings)
    page = write_report(Report(options, lab, outcome, strips.found(), size, exports, tuple(warnings)), run)
    shown = [columns.index(name) for name in _SHOWN]
    title = f"{outcome.quality.described()}; k = {outcome.quality.fidelity.k}"
    console.table(title, _SHOWN, [tuple(row[at] for at in shown) for row in rows])
    if settled.ticket is not None:
        console.table(f"Kept by {outcome.arm.scope}", LAYER_COLUMNS, layer_rows(settled.ticket))
        console.table("Sizes", SIZE_COLUMNS, size_rows(sizes(settled.ticket, size)))
        console.text(NO_SPEED_UP)
    for warning in warnings:
        console.warn(warning)
    if settled.ticket is not None:
        console.text(f"The ticket is {run.path / TICKET}; more images of it: vtk prune sample {run.path}")
    console.text(f"Look at {page}")
    run.finish(summary)
    console.emit(summary)


def _exports(options: RunVerbOptions, lab: Lab, settled: Settled, run: RunFolder) -> list[Export]:
    if not options.export:
        return []
    generator = settled.generator.to("cpu")
    original = None if settled.ticket is None else _frozen(settled.ticket, settled, lab.options)
    made = [
        export_generator(generator, form.value, run.path / "generator", theta=original)
        for form in dict.fromkeys(options.export)
    ]
    settled.generator.to(lab.device)
    return made


def _frozen(ticket: Ticket, settled: Settled, options: TrialOptions) -> dict[str, Any] | None:
    """The weights before masking, where a seed gives them; for others what is pruned is 0 in every form."""
    if ticket.origin.source != "seed" or options.theta is not None:
        return None
    whole = deepcopy(settled.generator).to("cpu")
    fill_weights(whole, ticket)
    return frozen_weights(whole)


def _summary(
    options: RunVerbOptions,
    lab: Lab,
    outcome: Outcome,
    run: RunFolder,
    *,
    size: int | None,
    exports: Sequence[Export],
    warnings: Sequence[str],
) -> dict[str, Any]:
    settled, arm = outcome.settled, outcome.arm
    ticket = settled.ticket
    found: dict[str, Any] = {
        "search": arm.name,
        "algorithm": arm.algorithm,
        "keep": float(arm.keep),
        "scope": arm.scope,
        "seed": arm.seed,
        "generator": dict(settled.generator.arguments),
        "kept": settled.counts.kept,
        "weights": settled.counts.n,
        "kept_fractions": None if ticket is None else kept_shares(ticket),
        "layers": [{"name": layer.name, "n": layer.n, "kept": layer.kept} for layer in settled.counts.layers],
        "theta_sha256": dict(zip(("before", "after"), settled.theta, strict=True)),
        "quality": plain(outcome.quality.to_json()),
        "floor": plain(outcome.floor.to_json()),
        "baselines": [without_samples(result) for result in outcome.baselines],
        "bytes": None if ticket is None else dict(vars(sizes(ticket, size))),
        "exports": [one.summary() for one in exports],
        "warnings": list(warnings),
        "steps": outcome.steps,
        "chosen_after": outcome.chosen,
        "seconds": outcome.seconds,
        "data": options.data,
        "train_images": len(lab.splits.train),
        "extractor": {name: value for name, value in lab.extractor.identity.items() if value is not None},
        "device": describe_device(lab.device),
        "folder": str(run.path),
        "ticket": None if ticket is None else str(run.path / TICKET),
    }
    return found
