"""Assembles the subcommands and turns every outcome into an exit code.

A subcommand's module is imported only when it is the one asked for, so `vtk --help`, `vtk --version` and completion
stay fast; nothing heavy is imported here.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import Abort, TyperException

from vtk_cli import __version__
from vtk_cli.engine.processes.program import Program, program
from vtk_cli.engine.signals import prompt_stops
from vtk_cli.engine.workers import lost_worker
from vtk_cli.errors import ExitCode, PeerLost, Stopped, VtkError

SUBCOMMANDS = {
    "train": (
        "vtk_cli.train.command",
        "Train image classifiers, with a masked sub-branch and annotation byproducts.",
    ),
    "detect": ("vtk_cli.detect.command", "Train and use transformer detectors: ViDT and ViDT+."),
    "segment": (
        "vtk_cli.segment.command",
        "Segment instances with few masks and many clicks: PointWSSIS.",
    ),
    "video-pretrain": (
        "vtk_cli.video_pretrain.command",
        "Pretrain video networks that look at motion: FreqAug and TIME.",
    ),
    "prune": ("vtk_cli.prune.command", "Find small image generators inside random ones: strong lottery tickets."),
    "search": ("vtk_cli.search.command", "Search architectures by the flatness of the loss surface: GeNAS."),
    "adapt": (
        "vtk_cli.adapt.command",
        "Move a classifier to another domain with few labels, asked for where they help: active adaptation.",
    ),
    "similarity": (
        "vtk_cli.similarity.command",
        "How alike networks are, by attack transferability (SAT).",
    ),
    "runs": ("vtk_cli.runs.command", "See, compare and clear away what runs left behind."),
    "models": ("vtk_cli.catalogue.command", "List the networks that can be named, and the commands that take each."),
    "data": ("vtk_cli.data.command", "List, make and check datasets."),
    "slurm": (
        "vtk_cli.slurm.command",
        "Any command as a job of a Slurm cluster: preempted, requeued and resumed without loss.",
    ),
    "proof": ("vtk_cli.families.proof", "Rerun a method's claim at small scale, with its baselines and every seed."),
    "bench": ("vtk_cli.families.bench", "Measure speed against a reference, side by side in one run."),
    "doctor": ("vtk_cli.doctor.command", "Show what this installation has, what it uses, and why."),
}
"""Subcommand -> (the module whose `app` is its typer application, its line in `vtk --help`)."""


class LazyGroup(TyperGroup):
    """Lists the subcommands from `SUBCOMMANDS`; imports one only to run it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, line) in SUBCOMMANDS.items():
            self.add_command(TyperCommand(name, help=line), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand named first in `args` and load its module."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in SUBCOMMANDS:
            module = importlib.import_module(SUBCOMMANDS[name][0])
            command = typer.main.get_command(module.app)
            verbs = getattr(command, "commands", {})
            # A command among its own verbs is meant where none is named: `vtk train DATA` beside `vtk train eval RUN`.
            if name in verbs and not (rest and rest[0] in verbs):
                command = verbs[name]
        return name, command, rest


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    # `--sub_ratio` is `--sub-ratio`: both spellings are about in the field's own programs.
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vtk {__version__}")
        raise typer.Exit


@app.callback()
def vtk(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """The command line for vision research: published methods, complete, on one engine.

    Every subcommand runs with no data given, on embedded datasets: start with `vtk similarity resnet50 vit_b`.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `vtk` with `arguments` (default: the process's own) and return its exit code (`errors.ExitCode`)."""
    with program(sys.argv[1:] if arguments is None else arguments) as running, prompt_stops() as stopped:
        return _run(running, stopped)


def _run(running: Program, stopped: Sequence[Stopped]) -> int:
    arguments = list(running.arguments)
    try:
        command = typer.main.get_command(app)
        code = command.main(args=arguments, prog_name="vtk", standalone_mode=False) or ExitCode.DONE
        if sys.stdout is not None:  # it is None where the caller closed it
            sys.stdout.flush()  # what cannot be written is heard here, not while Python ends
        return _interrupted(running, stopped) if code == ExitCode.INTERRUPTED else int(code)
    except VtkError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return running.complain(str(error), error.exit_code, of_loss=isinstance(error, PeerLost))
    except TyperException as error:
        what = error.format_message()
        if not what:  # a group alone has shown its help and has nothing more to say
            return ExitCode.USAGE
        return running.complain(" ".join(what.replace("Value error, ", "").split()), ExitCode.USAGE)
    except (KeyboardInterrupt, Abort):
        return _interrupted(running, stopped)
    except RuntimeError as error:
        if not (line := lost_worker(error)):
            raise
        if "--debug" in arguments:
            traceback.print_exc()
        return running.complain(line, ExitCode.FAILED)
    except OSError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        _drop_unwritten_output()
        if error.errno == errno.EPIPE:  # a reader who has read enough needs no message
            return ExitCode.FAILED
        return running.complain(f"{error.filename or 'the output'}: {error.strerror or error}", ExitCode.FAILED)


def _interrupted(running: Program, stopped: Sequence[Stopped]) -> int:
    """Say what typer, which makes a code of an interruption outside a command's work, leaves unsaid."""
    if stopped:
        return running.complain(str(stopped[0]), ExitCode.PREEMPTED)
    return running.complain("interrupted", ExitCode.INTERRUPTED)


def _drop_unwritten_output() -> None:
    """Where stdout takes nothing more, let what is left of it go, so that Python does not try again as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
