"""The face of `vtk data`: list, make and check datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtk_cli.console import Console
from vtk_cli.data.catalog import ENTRIES, cached, find_entry
from vtk_cli.data.video.records import ListFormat
from vtk_cli.errors import ExitCode
from vtk_cli.options import SpeechOptions, add_command, new_app, option

SHOWN = 50
"""How many problems `check` prints in full; `--verbose` and `--json` have all."""
ALL = "all"


def _complete_name(incomplete: str) -> list[str]:
    return [entry.name for entry in ENTRIES if entry.name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class ListOptions(SpeechOptions):
    """`vtk data list` has no options of its own."""


@dataclass(frozen=True, kw_only=True)
class MakeOptions(SpeechOptions):
    """What to make, and where."""

    name: str = option(
        ...,
        "An embedded dataset, or all.",
        positional=True,
        metavar="NAME",
        complete=lambda incomplete: [*_complete_name(incomplete), *([ALL] if ALL.startswith(incomplete) else [])],
        recorded=False,
    )
    out: Path | None = option(
        None,
        "Also put a copy at DIR/NAME.",
        panel="Output",
        short="-o",
        metavar="DIR",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class CheckOptions(SpeechOptions):
    """What to check, and how to read it."""

    target: str = option(
        ...,
        "An embedded dataset, an image folder, a dataset of COCO, YOLO or Pascal VOC, a list or folder of videos.",
        positional=True,
        metavar="NAME|PATH",
        complete=_complete_name,
        recorded=False,
    )
    kind: Literal["images", "coco", "yolo", "voc", "video"] | None = option(
        None, "How to read PATH [default: as its files suggest].", panel="Data", short="--as", recorded=False
    )
    format: ListFormat | None = option(
        None, "What a list of videos is [default: as it looks].", panel="Data", recorded=False
    )
    root: Path | None = option(
        None,
        "Where relative paths of a list of videos start [default: the list's folder].",
        panel="Data",
        metavar="DIR",
        recorded=False,
    )


def list_datasets(options: ListOptions, console: Console) -> None:  # noqa: ARG001 - it has none of its own
    """List the embedded datasets, and what of them is cached."""
    rows = [(entry, cached(entry)) for entry in ENTRIES]
    console.table(
        "Embedded datasets",
        ("name", "read as", "cached", "used by", "what"),
        [
            (
                entry.name,
                entry.kind,
                _size(there.size) if there.size is not None else "no",
                "\n".join(entry.used_by),
                entry.what,
            )
            for entry, there in rows
        ],
    )
    console.text("They are made when first used; make one now with: vtk data make NAME")
    console.text("To check one, or your own data: vtk data check NAME|PATH")
    console.emit(
        {
            "datasets": [
                {
                    "name": entry.name,
                    "kind": entry.kind,
                    "what": entry.what,
                    "used_by": list(entry.used_by),
                    "cached": there.size is not None,
                    "bytes": there.size,
                    "folder": str(there.folder),
                }
                for entry, there in rows
            ]
        }
    )


def make_datasets(options: MakeOptions, console: Console) -> None:
    """Make an embedded dataset in the cache; one that is there is held against its checksums."""
    entries = ENTRIES if options.name == ALL else (find_entry(options.name),)
    from vtk_cli.data.embedded import export_embedded, make_embedded

    made = []
    for entry in entries:
        if options.out is None:
            made.append(make_embedded(entry.name, console))
        else:
            made.append(export_embedded(entry.name, options.out, console))
        console.text(f"{entry.name}: {made[-1].folder}")
    console.emit(
        {"datasets": [{"name": one.name, "folder": str(one.folder), "fingerprint": one.fingerprint} for one in made]}
    )


def check_dataset(options: CheckOptions, console: Console) -> ExitCode:
    """Check a dataset as a subcommand would read it: name every broken, missing, mislabelled or out-of-range entry.

    Exits with 0 when all is well and with 2 when something is wrong.
    """
    from vtk_cli.data.audit import audit

    result = audit(options.target, console, options.kind, list_format=options.format, root=options.root)
    shown = result.problems if console.verbose else result.problems[:SHOWN]
    for problem in shown:
        console.text(f"{problem.where}: {problem.what}")
    if len(shown) < len(result.problems):
        console.text(f"... and {len(result.problems) - len(shown)} more; see all with --verbose or --json")
    if result.problems:
        console.table("Problems", ("what", "count"), list(result.counts().items()))
    found = f"{len(result.problems)} problems" if result.problems else "no problems"
    console.text(f"{result.name}: {result.entries} entries read as {result.kind}, {found}")
    console.emit(
        {
            "name": result.name,
            "kind": result.kind,
            "entries": result.entries,
            "counts": result.counts(),
            "problems": [{"where": problem.where, "what": problem.what} for problem in result.problems],
        }
    )
    return ExitCode.USAGE if result.problems else ExitCode.DONE


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


app = new_app("List, make and check datasets.")
add_command(app, ListOptions, list_datasets, name="list")
add_command(app, MakeOptions, make_datasets, name="make")
add_command(app, CheckOptions, check_dataset, name="check")
