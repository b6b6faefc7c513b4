"""`vtk bench NAME|all`: speed as a ratio against a reference or a peer, side by side in one run.

A subcommand folder joins by a `bench.py` with `measure(*, smallest, device, console) -> list[BenchRow]`; for the
kernels that is `families/kernels.py`, for several processes `families/scale.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.families.discovery import load, members
from vtk_cli.families.marks import insert_in
from vtk_cli.options import SpeechOptions, add_command, new_app, option
from vtk_cli.reports.evidence import BenchRow, rows_as_markdown


def _complete_name(incomplete: str) -> list[str]:
    return [name for name in [*members("bench"), "all"] if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class BenchOptions(SpeechOptions):
    """Options of `vtk bench`."""

    names: tuple[str, ...] = option(
        (), "Which benches, or all.", positional=True, metavar="NAME", complete=_complete_name
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    smallest: bool = option(False, "Exercise the machinery in seconds on the smallest settings.", panel="Run")
    readme: Path | None = option(
        None, "Put the table between the marks <!-- bench NAME cpu|cuda --> of this file.", panel="Run", metavar="FILE"
    )


def run(options: BenchOptions, console: Console) -> ExitCode:
    """Measure speed as a ratio against a reference or a peer, side by side in one run.

    Exit code 0 whenever it could measure; whether a target was met is information.
    """
    from vtk_cli.engine.devices import resolve_device

    if not options.names:
        raise UserError("which bench?", fix=f"there is {', '.join(members('bench'))}, all")
    device = resolve_device(options.device)
    rows: list[BenchRow] = []
    for name, module in load("bench", options.names).items():
        measured: list[BenchRow] = module.measure(smallest=options.smallest, device=device, console=console)
        if options.readme is not None:
            insert_in(options.readme, f"bench {name} {device.type}", rows_as_markdown(measured))
        rows += measured
    shown = [
        (
            row.name,
            f"{row.ours:.3g}",
            f"{row.theirs:.3g}",
            row.peer,
            f"{row.ratio:.2f}x",
            "-" if row.target is None else f">= {row.target:g}x",
            "yes" if row.holds else "no",
        )
        for row in rows
    ]
    console.table("Bench", ("work", "ours (s)", "theirs (s)", "peer", "ratio", "target", "holds"), shown)
    for row in rows:
        console.text(f"{row.name}: {row.note} [{row.device}]")
    console.emit({"rows": [row.as_json() for row in rows]})
    return ExitCode.DONE


app = new_app()
add_command(app, BenchOptions, run, name="bench", epilog="Examples:  vtk bench similarity   ·   vtk bench all --json")
