"""The face of `vtk runs`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError, nearest
from vtk_cli.options import SpeechOptions, add_command, new_app, option
from vtk_cli.runs.cleaning import removals, remove
from vtk_cli.runs.comparison import Line, compare
from vtk_cli.runs.numbers import all_numbers, headline, last_row
from vtk_cli.runs.record import RUNS, Run, find_runs, read_run
from vtk_cli.runs.words import duration, moment, short_moment, size

PAGE, COMPARISON = "run.html", "comparison.html"
_STATES = ("running", "done", "failed", "interrupted", "preempted", "killed")


def _complete_run(incomplete: str) -> list[str]:
    folders = [str(path.parent) for path in RUNS.glob("*/*/run.json")]
    return sorted(folder for folder in folders if folder.startswith(incomplete))


@dataclass(frozen=True, kw_only=True)
class PlacesOptions(SpeechOptions):
    """Which runs."""

    places: tuple[Path, ...] = option(
        (),
        "Run folders, or folders of run folders [default: runs].",
        positional=True,
        metavar="DIR",
        complete=_complete_run,
    )
    command: str | None = option(None, "Only runs of this command, e.g. 'detect train'.", panel="Which", metavar="NAME")

    def runs(self) -> list[Run]:
        """Those that are asked for.

        Raises:
            UserError: a place is no folder, or there are no runs of the command.
        """
        if not self.places and not RUNS.is_dir():
            return []
        found = find_runs(self.places or (RUNS,))
        if self.command is None:
            return found
        known = {run.command for run in found}
        if found and self.command not in known and not any(name.startswith(f"{self.command} ") for name in known):
            fix = nearest(self.command, known) or f"there are runs of {', '.join(sorted(known))}"
            raise UserError("no run of this command", f"--command {self.command}", fix)
        return [run for run in found if run.command == self.command or run.command.startswith(f"{self.command} ")]


@dataclass(frozen=True, kw_only=True)
class ListOptions(PlacesOptions):
    """Options of `vtk runs list`."""

    status: str | None = option(None, f"Only runs that are {', '.join(_STATES)}.", panel="Which", metavar="STATUS")
    last: int | None = option(None, "Only the N runs that were started last.", panel="Which", metavar="N", minimum=1)

    def check(self) -> None:
        """The status is one."""
        if self.status is not None and self.status not in _STATES:
            fix = nearest(self.status, _STATES) or f"there are {', '.join(_STATES)}"
            raise UserError("no such status", f"--status {self.status}", fix)


@dataclass(frozen=True, kw_only=True)
class ShowOptions(SpeechOptions):
    """Options of `vtk runs show`."""

    run: Path = option(..., "A run folder.", positional=True, metavar="RUN", complete=_complete_run)


@dataclass(frozen=True, kw_only=True)
class CompareOptions(SpeechOptions):
    """Options of `vtk runs compare`."""

    runs: tuple[Path, ...] = option(
        ..., "Two or more run folders.", positional=True, metavar="RUN", complete=_complete_run
    )
    all: bool = option(False, "Also the numbers that agree.", panel="Output")


@dataclass(frozen=True, kw_only=True)
class ReportOptions(SpeechOptions):
    """Options of `vtk runs report`."""

    runs: tuple[Path, ...] = option(
        ..., "A run folder; with several, a page that compares them.", positional=True, metavar="RUN",
        complete=_complete_run,
    )  # fmt: skip
    out: Path | None = option(
        None, f"The page [default: RUN/{PAGE}; of several: {COMPARISON}].", panel="Output", short="-o", metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class CleanOptions(PlacesOptions):
    """Options of `vtk runs clean`."""

    failed: bool = option(False, "Also whole runs that failed, were interrupted or killed.", panel="Which")
    older_than: float = option(0.0, "Only of runs that ended so many days ago.", panel="Which", metavar="D", minimum=0)
    yes: bool = option(False, "Remove; without it, only say what would go.", panel="Run", short="-y")


def list_runs(options: ListOptions, console: Console) -> ExitCode:
    """List runs folder by folder: state, when, how long, and the numbers that tell how good they are; newest last."""
    runs = [run for run in options.runs() if options.status in {None, run.status}]
    runs = runs[-options.last :] if options.last else runs
    folders = dict.fromkeys(run.path.parent for run in reversed(runs))
    for folder in reversed(folders):
        rows = [
            (run.name, run.status, short_moment(run.attempts[0].started), duration(run.seconds), _result(run))
            for run in runs
            if run.path.parent == folder
        ]
        console.table(str(folder), ("run", "status", "started", "took", "result"), rows)
    if not runs:
        console.text("there are no runs here; every command makes one, e.g. `vtk train`")
    console.emit({"runs": [_as_json(run) for run in runs]})
    return ExitCode.DONE


def show(options: ShowOptions, console: Console) -> ExitCode:
    """Show a run: how it went, its numbers, its files, its options."""
    run = read_run(options.run)
    facts = [
        ("command", run.command),
        ("status", f"{run.status}{f': {run.last.message}' if run.last.message else ''}"),
        ("started", moment(run.attempts[0].started)),
        ("took", f"{duration(run.seconds)}{f', {len(run.attempts)} sittings' if len(run.attempts) > 1 else ''}"),
        ("on", ", ".join(word for word in (run.device, run.last.host, _job(run)) if word)),
        ("seed", run.seed),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        *((number.name, number.text) for number in headline(run)),
    ]
    console.table(str(run.path), ("", "value"), [(name, value) for name, value in facts if value not in {None, ""}])
    last = last_row(run)
    if last:
        rows = [(name, f"{value:.6g}") for name, value in last.items()]
        console.table("Last row of metrics.jsonl", ("", "value"), rows)
    files = [path for path in sorted(run.path.iterdir()) if not path.name.startswith(".")]
    console.table("Files", ("name", "size"), [(path.name, _size(path)) for path in files])
    if console.verbose:
        console.table("Options", ("", "value"), [*run.options.options.items()])
    console.text(f"repeat it: vtk {run.command} --config {run.path / 'config.toml'}")
    console.emit(
        {**_as_json(run), "options": dict(run.options.options), "summary": dict(run.summary), "last_row": last}
    )
    return ExitCode.DONE


def compare_runs(options: CompareOptions, console: Console) -> ExitCode:
    """Put runs side by side: their results, and the options in which they differ."""
    found = compare([read_run(path) for path in _each_once(options.runs)])
    columns = ("", *found.names)
    facts = [
        Line("status", [run.status for run in found.runs]),
        Line("took", [duration(run.seconds) for run in found.runs]),
    ]
    console.table("Results", columns, _rows([*found.headlines, *facts]))
    console.table("Options that differ", columns, _rows(found.options))
    numbers = [line for line in found.numbers if options.all or line.differs]
    console.table("Numbers", columns, _rows(numbers))
    console.emit(found.as_json())
    return ExitCode.DONE


def report(options: ReportOptions, console: Console) -> ExitCode:
    """Write a run, or several side by side, as one HTML page that needs no network and nothing beside it."""
    from vtk_cli.reports.page import write_page
    from vtk_cli.runs.report import comparison_page, run_page

    runs = [read_run(path) for path in _each_once(options.runs)]
    path = options.out or (runs[0].path / PAGE if len(runs) == 1 else Path(COMPARISON))
    if path.is_dir():
        raise UserError("is a folder", f"--out {path}", "name the page, e.g. report.html")
    with tempfile.TemporaryDirectory() as drawings:
        made = run_page(runs[0], Path(drawings)) if len(runs) == 1 else comparison_page(compare(runs), Path(drawings))
        write_page(path, made)
    console.text(f"Look at {path}")
    console.emit({"report": str(path)})
    return ExitCode.DONE


def clean(options: CleanOptions, console: Console) -> ExitCode:
    """Remove what only takes room: the checkpoints of runs that are done, and with --failed runs that came to nothing.

    Results and weights of runs that are done stay. What is at work, or was preempted and goes on, is left alone.
    Without --yes nothing is removed.
    """
    found = removals(options.runs(), failed=options.failed, older_than_days=options.older_than)
    gone = [removal for removal in found if options.yes and remove(removal)]
    console.table(
        "",
        ("folder", "of a run that is", "size", "removed" if options.yes else "would go"),
        [
            (each.folder, each.run.status, size(each.size), "yes" if each in gone or not options.yes else "in use")
            for each in found
        ],
    )
    total = sum(each.size for each in (gone if options.yes else found))
    if not found:
        console.text("nothing to remove")
    elif options.yes:
        console.text(f"removed {size(total)}")
    else:
        console.text(f"{size(total)} would be freed; --yes removes them")
    console.emit(
        {
            "removed": options.yes,
            "bytes": total,
            "folders": [str(each.folder) for each in (gone if options.yes else found)],
        }
    )
    return ExitCode.DONE


def _each_once(paths: Sequence[Path]) -> list[Path]:
    return [*{path.resolve(): path for path in paths}.values()]


def _result(run: Run) -> str:
    return ", ".join(f"{number.name} {number.text}" for number in headline(run))


def _job(run: Run) -> str:
    return f"Slurm job {run.slurm_job}" if run.slurm_job else ""


def _rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    return [(line.name, *line.values) for line in lines]


def _size(path: Path) -> str:
    if path.is_dir():
        count = sum(1 for _ in path.iterdir())
        return f"{count:,} entries"
    return size(path.stat().st_size) if path.exists() else ""


def _as_json(run: Run) -> dict[str, Any]:
    return {
        "folder": str(run.path),
        "command": run.command,
        "status": run.status,
        "message": run.last.message or None,
        "started": run.attempts[0].started.isoformat() if run.attempts[0].started else None,
        "seconds": run.seconds,
        "sittings": len(run.attempts),
        "host": run.last.host,
        "device": run.device,
        "slurm_job": run.slurm_job or None,
        "seed": run.seed,
        "result": {number.name: number.value for number in headline(run)},
        "numbers": all_numbers(run.summary),
    }


_EXAMPLES = {
    "list": ("", "--status done --last 5", "--json"),
    "show": ("RUN", "RUN --verbose", "RUN --json"),
    "compare": ("RUN RUN", "runs/train/*", "RUN RUN --all"),
    "report": ("RUN", "RUN RUN -o both.html", "runs/train/*"),
    "clean": ("", "--yes", "--failed --older-than 7 --yes"),
}


def _epilog(verb: str) -> str:
    return "Examples:  " + "   ·   ".join(f"vtk runs {verb} {words}".strip() for words in _EXAMPLES[verb])


app = new_app("See, compare and clear away what runs left behind.")
add_command(app, ListOptions, list_runs, name="list", epilog=_epilog("list"))
add_command(app, ShowOptions, show, name="show", epilog=_epilog("show"))
add_command(app, CompareOptions, compare_runs, name="compare", epilog=_epilog("compare"))
add_command(app, ReportOptions, report, name="report", epilog=_epilog("report"))
add_command(app, CleanOptions, clean, name="clean", epilog=_epilog("clean"))
