"""`--nproc N`: the same command as N processes of this machine, started and watched by torch's own elastic agent.

torchrun and srun start processes too, on many machines; a command that finds itself among theirs starts none.
Nothing here imports torch before there are several processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from vtk_cli.console import Console
from vtk_cli.engine.launchers import is_launched
from vtk_cli.engine.parallel_options import ProcessOptions
from vtk_cli.errors import ExitCode

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

OptionsType = TypeVar("OptionsType", bound=ProcessOptions)
Run = Callable[[OptionsType, Console], ExitCode | None]


class Program:
    """This process's own words, and where it meets the others that run the same ones.

    Args:
        arguments: of the command line, without the program's name.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = tuple(arguments)
        self._store: Store | None = None

    def meet_others(self) -> None:
        """Wait for the other processes, to complain with one voice from now on.

        Raises:
            JobError: the first process cannot be reached.
        """
        from vtk_cli.engine.meeting import meet

        self._store = meet()

    def complain(self, text: str, *, of_loss: bool = False) -> None:
        """Say on stderr why the command failed; of several processes that say the same, one does.

        Args:
            text: one line.
            of_loss: whether the reason is that another process has ended.
        """
        if is_launched():
            from vtk_cli.engine.one_voice import complain

            complain(text, self._store, of_loss=of_loss)
        else:
            Console().error(text)


_PROGRAM: ContextVar[Program] = ContextVar("program")


@contextmanager
def program(arguments: Sequence[str]) -> Iterator[Program]:
    """The program with these arguments, which `launched` starts again or finds others of."""
    running = Program(arguments)
    token = _PROGRAM.set(running)
    try:
        yield running
    finally:
        _PROGRAM.reset(token)


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
        this = _PROGRAM.get(None) or Program(sys.argv[1:])
        if is_launched():
            return _run_among_others(run, options, console, this)
        if options.nproc is None or options.nproc == 1:
            return run(options, console)
        from vtk_cli.engine.local_processes import require_devices, run_processes

        require_devices(options.device or "auto", options.nproc)
        if getattr(options, "dry_run", False):
            return run(options, console)
        return run_processes(this.arguments, options.nproc, show_agent=options.debug)

    return start


def _run_among_others(run: Run[OptionsType], options: OptionsType, console: Console, this: Program) -> ExitCode | None:
    from vtk_cli.engine.one_voice import lost_peers_named

    with lost_peers_named():
        this.meet_others()
        return run(options, console)
