"""Rows as independent work: one shard of them, and whether all are there to be merged."""

from __future__ import annotations

import contextlib

import torch

from vtk_cli.console import Console
from vtk_cli.engine.signals import stop_requests
from vtk_cli.errors import ExitCode
from vtk_cli.files import Busy
from vtk_cli.similarity.command import SimilarityOptions
from vtk_cli.similarity.preparation import Named, prepare, require_none
from vtk_cli.similarity.rows import Rows


def work_on_shard(options: SimilarityOptions, named: list[Named], device: torch.device, console: Console) -> ExitCode:
    """Compute some rows into the store; any number of such processes may run at once."""
    with stop_requests() as stop:
        rows = prepare(options, named, device, console, lambda: stop.raise_if_requested("finished rows"))
        index, count = options.shard_numbers or (0, 1)
        mine = range(index, len(named), count)
        for source in mine:
            busy = contextlib.suppress(Busy) if options.shard == "queue" else contextlib.nullcontext()
            with busy:
                rows.row(source, wait=options.shard != "queue")
    finished = [rows.comparison.names[source] for source in mine if rows.is_finished(source)]
    console.text(f"shard {options.shard}: {len(finished)} rows are finished; assemble them with --merge")
    console.emit({"shard": options.shard, "finished": finished, "attacks": rows.work.attacks})
    return ExitCode.DONE


def require_finished(rows: Rows) -> None:
    """Insist that every row is in the store.

    Raises:
        UserError: naming the first that are missing.
    """
    names = rows.comparison.names
    require_none([name for source, name in enumerate(names) if not rows.is_finished(source)], len(names))
