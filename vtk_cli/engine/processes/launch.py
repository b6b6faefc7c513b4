"""`--nproc N`: the same command as N processes of this machine, started and watched by torch's own elastic agent.

torchrun and srun start processes too, on many machines; a command that finds itself among theirs starts none.
Nothing here imports torch before there are several processes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from vtk_cli.console import Console
from vtk_cli.engine.processes.launchers import is_launched
from vtk_cli.engine.processes.parallel_options import ProcessOptions
from vtk_cli.engine.processes.program import Program, hush_torch, running_program
from vtk_cli.errors import ExitCode

OptionsType = TypeVar("OptionsType", bound=ProcessOptions)
Run = Callable[[OptionsType, Console], ExitCode | None]


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
        this, count = running_program(), options.nproc or 1
        if count == 1 and not is_launched():
            return run(options, console)
        if not options.debug:
            hush_torch()
        if is_launched():
            return _run_among_others(run, options, console, this)
        from vtk_cli.engine.processes.local_processes import require_devices, run_processes

        require_devices(options.device or "auto", count)
        if getattr(options, "dry_run", False):
            return run(options, console)
        return run_processes(this.arguments, count, show_agent=options.debug)

    return start


def _run_among_others(run: Run[OptionsType], options: OptionsType, console: Console, this: Program) -> ExitCode | None:
    from vtk_cli.engine.processes.one_voice import lost_peers_named

    with lost_peers_named():
        this.meet_others()
        return run(options, console)
