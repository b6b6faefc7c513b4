"""`vtk` as tasks of an array, each a process.

A task is the command's arguments and, where it is to be killed, before which of its results it is to be: the work on it
is done then, and lost. The other tasks of its array begin when it holds that piece, and it dies when one of them has
made another. What each task keeps is a line of the array's log.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forked import PATIENCE_S, exit_code, fork, in_a_fork


@dataclass(frozen=True)
class Ended:
    """How tasks ended.

    Args:
        codes: what each exited with; -9 for one that was killed.
        said: what each printed.
        kept: what the tasks of each array kept, as often as they did.
    """

    codes: list[int]
    said: list[str]
    kept: list[list[str]]


def run_tasks(
    arguments: Sequence[Sequence[object]],
    modules: Sequence[str],
    folder: Path,
    *,
    dies: Mapping[int, int],
    size: int | None = None,
) -> Ended:
    """Run commands at the same time in the working directory.

    Args:
        arguments: of every task, without `vtk`.
        modules: to import before.
        folder: for the log and what they print.
        dies: task -> N: it is killed before it keeps its Nth result; at most one of an array.
        size: so many tasks are an array, and so many the next; None: all are one.
    """
    folder.mkdir(parents=True)
    size = size or len(arguments)
    arrays = {number // size for number in dies}
    tasks = [
        {
            "arguments": [*map(str, words)],
            "array": number // size,
            "dies_at": dies.get(number),
            "waits": number // size in arrays and number not in dies,
        }
        for number, words in enumerate(arguments)
    ]
    codes = in_a_fork(_run, folder, tasks, modules=modules)
    said = [(folder / f"{number}.out").read_text(encoding="utf-8") for number in range(len(tasks))]
    kept = [log.read_text(encoding="utf-8").split() for log in sorted(folder.glob("*.kept"))]
    return Ended(codes, said, kept)


def _wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < end:
        time.sleep(0.02)


def _keep_a_log(log: Path, dies_at: int | None) -> None:
    """Note in the log whatever the stores of results are given to keep, before they do; die before the Nth."""
    from vtk_cli.engine.pieces import result_folders
    from vtk_cli.engine.pieces.assembly import ASSEMBLED
    from vtk_cli.engine.pieces.results import ResultStore
    from vtk_cli.similarity import digits_networks
    from vtk_cli.similarity.store import Store

    count = 0

    def note(what: str) -> None:
        nonlocal count
        count += 1
        if count == dies_at:
            before = log.stat().st_size if log.exists() else 0
            log.with_suffix(".dying").touch()
            _wait_until(lambda: log.exists() and log.stat().st_size > before)
            os.kill(os.getpid(), signal.SIGKILL)
        with log.open("a", encoding="utf-8") as lines:
            lines.write(f"{what}\n")

    put, save, write, train = ResultStore.put, Store.save_arrays, result_folders.write_sealed, digits_networks._save

    def noted_put(self: ResultStore, key: str, result: Any) -> None:
        note(f"{self.folder.name if self.folder.name == ASSEMBLED else 'result'}/{key}")
        put(self, key, result)

    def noted_save(self: Store, kind: str, key: str, arrays: Any) -> None:
        note(f"{kind}/{key}")
        save(self, kind, key, arrays)

    def noted_write(path: Path, value: Any) -> None:
        note(f"folder/{path.parent.name}")
        write(path, value)

    def noted_train(net: Any, network: Any, folder: Path) -> None:
        note(f"network/{folder.name}")
        train(net, network, folder)

    digits_networks._save = noted_train
    ResultStore.put, Store.save_arrays = noted_put, noted_save  # type: ignore[method-assign]
    result_folders.write_sealed = noted_write  # type: ignore[attr-defined]


def _task(number: int, task: dict[str, Any], folder: Path) -> int:
    from vtk_cli.app import main

    with (folder / f"{number}.out").open("w", encoding="utf-8") as out:
        os.dup2(out.fileno(), 1)
    log = folder / f"{task['array']}.kept"
    _keep_a_log(log, task["dies_at"])
    if task["waits"]:
        _wait_until(log.with_suffix(".dying").exists)
    return main(task["arguments"])


def _run(folder: str, tasks: list[dict[str, Any]]) -> list[int]:
    def start(number: int) -> int:
        return fork(lambda: _task(number, tasks[number], Path(folder)))

    children = [*map(start, range(len(tasks)))]
    return [*map(exit_code, children)]
