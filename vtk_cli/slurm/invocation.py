"""The command of `vtk` that a job is to run, read as `vtk` itself reads it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import typer

from vtk_cli.app import app
from vtk_cli.engine.processes.parallel_options import ProcessOptions
from vtk_cli.errors import JobError, UserError
from vtk_cli.options import Options, RunOptions, option_fields

_EXAMPLE = "name a command after --, e.g. vtk slurm submit --gpus 8 -- train imagenet"
_OURS = "slurm"


@dataclass(frozen=True)
class Invocation:
    """A command line of `vtk`, known to be one.

    Args:
        path: the command and its verb, `("detect", "train")`.
        rest: the words after them.
        options: what they come to.
    """

    path: tuple[str, ...]
    rest: tuple[str, ...]
    options: Options

    @property
    def words(self) -> tuple[str, ...]:
        """All words after `vtk`."""
        return (*self.path, *self.rest)

    @property
    def makes_run_folder(self) -> bool:
        """Whether it keeps its state in a run folder, which `--out` names."""
        return isinstance(self.options, RunOptions)

    @property
    def runs_as_several(self) -> bool:
        """Whether several processes do it together."""
        return isinstance(self.options, ProcessOptions)

    def has(self, field: str) -> bool:
        """Whether the command has an option, by the name of its field."""
        return field in option_fields(type(self.options))

    def with_flags(self, *flags: str) -> Invocation:
        """The same with `flags` put before the other words, of which the last may be behind a `--`."""
        return replace(self, rest=(*flags, *self.rest))

    def with_config(self, path: str) -> Invocation:
        """The same with another file for `--config`, which the words have."""
        rest = list(self.rest)
        for index, word in enumerate(rest):
            if word == "--config":
                rest[index + 1] = path
                break
            if word.startswith("--config="):
                rest[index] = f"--config={path}"
                break
        return replace(self, rest=tuple(rest))


def read_invocation(words: Sequence[str]) -> Invocation:
    """Find the command that `words` name and read its options.

    Args:
        words: with or without `vtk` in front.

    Raises:
        UserError, TyperException: there is no such command, or it does not take them; as the command itself says it.
    """
    words = [*words]
    if words[:1] == ["vtk"]:
        words = words[1:]
    if not words or words[0].startswith("-"):
        raise UserError("there is no command to run", fix=_EXAMPLE)
    if words[0] == _OURS:
        raise UserError("a job does not submit jobs", "slurm", _EXAMPLE)
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="vtk", **command.context_settings)
    path: list[str] = []
    rest = words
    while hasattr(command, "resolve_command"):
        if not rest:
            raise UserError("is a group of commands", " ".join(path), f"give one: {', '.join(command.commands)}")
        name, command, rest = command.resolve_command(context, rest)
        path.append(name)
        if hasattr(command, "resolve_command"):
            context = typer.Context(command, info_name=name, parent=context)
    read = command.make_context(path[-1], [*rest], parent=context)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in read.params.items()}
    return Invocation(tuple(path), tuple(rest), command.options(**values))


def try_dry(invocation: Invocation) -> None:
    """Let the command plan its work here, as `--dry-run` does, on whatever device this machine has.

    A command without `--dry-run` was read, and that is all that can be known.

    Raises:
        UserError: it does not get as far as the plan for a reason of the user's; its own message.
        JobError: nor for another reason.
    """
    if not invocation.has("dry_run"):
        return
    flags = ["--dry-run"]
    device = getattr(invocation.options, "device", "auto")
    if device != "auto":  # where jobs are submitted there may be none such
        invocation = replace(invocation, rest=_without(invocation.rest, "--device"))
        flags += ["--device", "auto"]
    words = invocation.with_flags(*flags).words
    done = subprocess.run([sys.executable, "-m", "vtk_cli", *words], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    lines = done.stderr.splitlines() or [""]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    ended = f"vtk {' '.join(invocation.path)} --dry-run ended with {done.returncode}: {lines[-1]}"
    message = errors[-1] if errors else ended
    raise (UserError if done.returncode == 2 else JobError)(message)


def _without(words: Sequence[str], flag: str) -> tuple[str, ...]:
    """The words without a flag and its value, wherever it stands."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word == flag or word.startswith(f"{flag}="):
            skip = word == flag and not skip
            continue
        kept.append(word)
    return tuple(kept)
