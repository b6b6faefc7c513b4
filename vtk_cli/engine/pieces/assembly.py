"""The last piece of shared work: of all tasks that find every piece there, exactly one assembles the result.

The assembly is a piece like the others, under a lock and remembered in the store: a task that is killed while it
assembles is stood in for by another, and one that comes later finds that it was done. It is done again where what was
assembled is gone or has been replaced since.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.engine.pieces.results import ResultStore, work_through
from vtk_cli.engine.pieces.shard_options import ShardOptions
from vtk_cli.engine.signals import StopRequest, stop_requests
from vtk_cli.errors import ExitCode
from vtk_cli.files import content_key, require_folder, sha256_file

ASSEMBLED = "assembled"
"""The folder of a store that remembers what was assembled."""


@dataclass(frozen=True)
class Assembled:
    """A result that is there.

    Args:
        file: the result, `summary.json` in a run folder.
        by: the task that assembled it, in words.
        here: whether that was this process, just now.
    """

    file: Path
    by: str
    here: bool


def assembled_once(
    store: Path, about: dict[str, Any], assemble: Callable[[], Path], *, task: str, stop: StopRequest
) -> Assembled:
    """Assemble a result all of whose pieces are there, unless another task does or has.

    Args:
        store: the folder of the pieces.
        about: everything that shapes the result, JSON: the same in all tasks.
        assemble: writes the result and gives its last file, the sum of it all.
        task: which this process is, `3/6`.
        stop: obeyed while another task is at it.

    Raises:
        Preempted, KeyboardInterrupt: a signal came while another task was at it.
    """
    here: list[Path] = []

    def compute(_: str) -> dict[str, Any]:
        file = assemble()
        here.append(file)
        by = f"task {task} (process {os.getpid()} on {socket.gethostname()})"
        return {"file": str(file.resolve()), "sha256": sha256_file(file), "by": by}

    def is_there(_: str, record: dict[str, Any]) -> bool:
        file = Path(str(record.get("file")))
        return file.is_file() and sha256_file(file) == record.get("sha256")

    (record,) = work_through(
        [content_key(about)],
        key=str,
        compute=compute,
        store=ResultStore(store / ASSEMBLED),
        stop=stop,
        kept="all pieces",
        sound=is_there,
    )
    return Assembled(Path(record["file"]), str(record["by"]), bool(here))


def require_place(options: ShardOptions) -> None:
    """Refuse a place where no run folder can be before the pieces are made whose result is to go there.

    A helper, who assembles nothing, needs none.

    Raises:
        UserError: see `require_folder`.
    """
    if options.shard is None or options.is_task:
        require_folder(options.out or Path("runs"))


def end_shard(
    options: ShardOptions,
    command: str,
    keys: Sequence[str],
    store: Path,
    assemble: Callable[[], Path],
    *,
    kept: str,
    console: Console,
) -> ExitCode:
    """What a process with `--shard` does once all pieces are there: a task assembles or says who did, a helper leaves.

    Args:
        options: of the command.
        command: with its verb, `prune sweep`.
        keys: of all pieces.
        store: the folder that holds them.
        assemble: does what the command does by itself; gives the run's `summary.json`.
        kept: the pieces in words, `finished searches`.
        console: told how it ended.
    """
    what, said = kept.removeprefix("finished "), {"shard": options.shard, "pieces": len(keys)}
    if not options.is_task:
        console.text(f"shard {options.shard}: all {len(keys):,} {what} are there")
        console.emit(said)
        return ExitCode.DONE
    place = str((options.out or Path("runs")).resolve())
    about = {"command": command, "config": options.as_config(), "place": place, "pieces": list(keys)}
    with stop_requests() as stop:
        end = assembled_once(store, about, assemble, task=str(options.shard), stop=stop)
    if not end.here:
        console.text(f"shard {options.shard}: all {len(keys):,} {what} are there")
        console.text(f"assembled by {end.by}; look in {end.file.parent}")
        console.emit({**said, "run_folder": str(end.file.parent), "assembled_by": end.by})
    return ExitCode.DONE
