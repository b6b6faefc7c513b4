"""`--nproc N`: the same command as N processes of this machine, started and watched by torch's own elastic agent.

torchrun and srun start processes too, on many machines; a command that finds itself among theirs starts none.
Nothing here imports torch before there is something to start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TypeVar

from vtk_cli.console import Console
from vtk_cli.engine.parallel_options import ProcessOptions
from vtk_cli.errors import ExitCode

OptionsType = TypeVar("OptionsType", bound=ProcessOptions)
Run = Callable[[OptionsType, Console], ExitCode | None]

_COMMAND_LINE: ContextVar[tuple[str, ...]] = ContextVar("command line")


def launched(run: Run[OptionsType]) -> Run[OptionsType]:
    """`run`, or with `--nproc N` as many processes of it.

    Args:
        run: the work of a command: `add_command(app, TrainOptions, launched(train))`.

    Returns:
        What does the same for any number of processes. The exit code is that of the processes; what they say is said
        once, and only the first writes to stdout.
    """

    @wraps(run)
    def start(options: OptionsType, console: Console) -> ExitCode | None:
        count = options.nproc or 1
        if count == 1 or is_launched():
            return run(options, console)
        from vtk_cli.engine.local_processes import require_devices, run_processes

        require_devices(options.device, count)
        if getattr(options, "dry_run", False):
            return run(options, console)
        return run_processes(_COMMAND_LINE.get(tuple(sys.argv[1:])), count, show_agent=options.debug)

    return start


@contextmanager
def command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Within this, `arguments` are those of the program: what `--nproc` starts again."""
    token = _COMMAND_LINE.set(tuple(arguments))
    try:
        yield
    finally:
        _COMMAND_LINE.reset(token)


def is_launched() -> bool:
    """Whether torchrun, srun or `--nproc` started this process as one of several.

    An sbatch script sees `SLURM_NTASKS` too, but only srun sets `SLURM_STEP_NUM_TASKS`: a plain `vtk` inside the
    script is alone.
    """
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"]) > 1
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
