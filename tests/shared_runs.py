"""Commands that several processes run together."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.command_line import Said
from tests.forked import exit_code, fork, free_port, in_a_fork, world_variables


def run_together(
    commands: Sequence[Sequence[object]],
    *,
    folder: Path,
    cache: Path,
    preload: str,
    patches: str | None = None,
    processes: int = 2,
) -> list[list[Said]]:
    """Run each command by so many processes, which find one another as those of torchrun do.

    Args:
        commands: each after `vtk`, as `["train", DATA]`.
        folder: where they are run.
        cache: of the program.
        preload: the module that is imported before.
        patches: a module of the tests that changes what these commands do, imported after it.
        processes: of each command.

    Returns:
        What each process of each command left behind, by rank.
    """
    cases = [[*map(str, command)] for command in commands]
    variables = {"VTK_CACHE": cache}
    done = in_a_fork(_run, cases, patches, processes, folder=folder, modules=[preload], environment=variables)
    return [[Said(*one) for one in case] for case in done]


def _run(cases: list[list[str]], patches: str | None, processes: int) -> list[list[tuple[int, str, str]]]:
    if patches is not None:
        importlib.import_module(patches)
    return [_shared(arguments, processes) for arguments in cases]


def _shared(arguments: list[str], processes: int) -> list[tuple[int, str, str]]:
    port = free_port()
    with tempfile.TemporaryDirectory() as said:

        def run(rank: int) -> int:
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(Path(said, f"{name}{rank}"), os.O_WRONLY | os.O_CREAT), stream)
            os.environ |= world_variables(rank, processes, port)
            from vtk_cli.app import main as vtk

            return vtk(arguments)

        children = [fork(lambda rank=rank: run(rank)) for rank in range(processes)]
        codes = [*map(exit_code, children)]
        return [
            (code, Path(said, f"out{rank}").read_text(), Path(said, f"err{rank}").read_text())
            for rank, code in enumerate(codes)
        ]
