"""A command whose processes fail in every way: `vtk fail WAY`. Imported before processes are forked."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import NoReturn

from vtk_cli.app import SUBCOMMANDS
from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import join_world
from vtk_cli.engine.processes.launch import launched
from vtk_cli.engine.processes.parallel_options import ProcessOptions
from vtk_cli.errors import UserError
from vtk_cli.options import add_command, new_app, option

SUBCOMMANDS["fail"] = (__name__, "Fail.")


@dataclass(frozen=True, kw_only=True)
class FailOptions(ProcessOptions):
    """How to fail."""

    way: str = option("", "Who fails how.", positional=True, metavar="WAY")


def refuse() -> NoReturn:
    raise UserError("no", "there")


def fail(options: FailOptions, console: Console) -> None:
    """Fail."""
    if options.way == "all":
        refuse()
    with join_world(options.device) as world:
        if options.way == "first":
            world.on_main(refuse)
        if not world.is_main:
            if options.way == "second":
                refuse()
            if options.way == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
        world.barrier()


app = new_app()
add_command(app, FailOptions, launched(fail), name="fail")
