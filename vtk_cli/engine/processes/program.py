"""The program that runs: its own words, and the others that run the same ones beside it.

Nothing here imports torch before there are several processes, nor the options, which every subcommand imports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from vtk_cli.console import Console
from vtk_cli.engine.processes.launchers import is_launched

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store


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
        from vtk_cli.engine.processes.meeting import meet

        self._store = meet()

    def complain(self, text: str, code: int, *, of_loss: bool = False) -> int:
        """Say on stderr why the command failed; of several processes that say the same, one does.

        Args:
            text: one line.
            code: the exit code that goes with it.
            of_loss: whether the reason is that another process has ended.

        Returns:
            The exit code, which is another one's where that process has failed first.
        """
        if is_launched():
            hush_torch()
            from vtk_cli.engine.processes.one_voice import complain

            return complain(text, code, self._store, of_loss=of_loss)
        Console().error(text)
        return code


_PROGRAM: ContextVar[Program] = ContextVar("program")


@contextmanager
def program(arguments: Sequence[str]) -> Iterator[Program]:
    """The program with these arguments, which `--nproc` starts again."""
    running = Program(arguments)
    token = _PROGRAM.set(running)
    try:
        yield running
    finally:
        _PROGRAM.reset(token)


def running_program() -> Program:
    """The program whose work this is."""
    return _PROGRAM.get(None) or Program(sys.argv[1:])


def hush_torch() -> None:
    """Torch's own warnings of each socket that closes are not printed; to be said before it is imported."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
