"""Several processes of one script that meet as torchrun's would, without its agent and without importing torch anew."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.forked import exit_code, fork, free_port, in_a_fork, world_variables


def run_world(script: Path, *arguments: object, size: int = 2, **environment: Sequence[object]) -> list[int]:
    """Run a script in processes that find one another as those of torchrun do.

    Args:
        script: is run as `__main__`.
        arguments: its own.
        size: how many processes.
        environment: of each process, in place of what torchrun sets.

    Returns:
        Their exit codes.
    """
    if environment:
        worlds = [{name: str(values[rank]) for name, values in environment.items()} for rank in range(size)]
    else:
        worlds = [world_variables(rank, size, port) for port in (free_port(),) for rank in range(size)]
    codes: list[int] = in_a_fork(_run_scripts, script, [*map(str, arguments)], worlds)
    return codes


def _run_scripts(script: str, arguments: list[str], worlds: list[dict[str, str]]) -> list[int]:
    def run(world: dict[str, str]) -> int:
        os.environ |= world
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        return 0

    return [*map(exit_code, [fork(lambda world=world: run(world)) for world in worlds])]
