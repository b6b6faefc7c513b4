"""All options of `vtk slurm`; those of a job are also the keys of a config file's `[slurm]` table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.errors import UserError
from vtk_cli.options import SLURM_TABLE, SpeechOptions, option, read_config

_TIME = re.compile(r"(?:(?P<days>\d+)-(?P<of_day>\d+(?::\d+){0,2})|(?P<alone>\d+(?::\d+){0,2}))")


@dataclass(frozen=True, kw_only=True)
class JobOptions(SpeechOptions):
    """What a job asks of the cluster, and what it runs there."""

    words: tuple[str, ...] = option(
        (), "After --: a command of vtk with its options.", positional=True, metavar="COMMAND", recorded=False
    )
    partition: str | None = option(None, "The partition.", panel="Queue", short="-p", metavar="NAME")
    account: str | None = option(None, "Whom to charge.", panel="Queue", short="-A", metavar="NAME")
    qos: str | None = option(None, "The quality of service.", panel="Queue", metavar="NAME")
    time: str | None = option(
        None, "Time limit: minutes, HH:MM:SS or D-HH:MM:SS.", panel="Queue", short="-t", metavar="TIME"
    )
    dependency: str | None = option(
        None, "Start after other jobs, e.g. afterok:1234.", panel="Queue", metavar="KIND:JOB"
    )
    job_name: str | None = option(None, "Name of the job [default: vtk-COMMAND].", panel="Queue", metavar="NAME")
    mail: str | None = option(None, "Write there when it ends, fails or is requeued.", panel="Queue", metavar="ADDRESS")
    extra: tuple[str, ...] = option(
        (), "A further option of sbatch, e.g. --extra=--exclusive; may be repeated.", panel="Queue", metavar="OPTION"
    )

    nodes: int | None = option(None, "Machines.", panel="Resources", short="-N", metavar="N", minimum=1)
    gpus: int | None = option(None, "GPUs on each machine.", panel="Resources", metavar="N", minimum=1)
    ntasks_per_node: int | None = option(
        None,
        "Processes on each machine [default: for commands that train, one a GPU].",
        panel="Resources",
        short="--nproc",
        metavar="N",
        minimum=1,
    )
    cpus_per_task: int | None = option(
        None, "Cores for each process.", panel="Resources", short="-c", metavar="N", minimum=1
    )
    mem: str | None = option(None, "Memory on each machine, e.g. 64G.", panel="Resources", metavar="SIZE")
    constraint: str | None = option(
        None, "Features the machines must have.", panel="Resources", short="-C", metavar="FEATURE"
    )
    nodelist: str | None = option(None, "Use these machines.", panel="Resources", short="-w", metavar="HOSTS")
    exclude: str | None = option(None, "Use none of these machines.", panel="Resources", short="-x", metavar="HOSTS")
    array: str | None = option(
        None,
        "So many tasks that share the pieces of the work, at most LIMIT at a time; for commands with --shard.",
        panel="Resources",
        short="-a",
        metavar="N[%LIMIT]",
    )

    modules: tuple[str, ...] = option(
        (), "Load this environment module; may be repeated.", panel="Environment", metavar="NAME"
    )
    venv: Path | None = option(None, "Activate this virtual environment.", panel="Environment", metavar="DIR")
    container: str | None = option(
        None,
        "Run in this container: a .sif file or docker://IMAGE with apptainer, any other image with pyxis.",
        panel="Environment",
        metavar="IMAGE",
    )
    mount: tuple[str, ...] = option(
        (), "Show this folder in the container too; may be repeated.", panel="Environment", metavar="DIR[:DIR]"
    )
    setup: tuple[str, ...] = option(
        (), "A line of bash to run before; may be repeated.", panel="Environment", metavar="LINE"
    )

    signal: int = option(
        120,
        "Ask the command to save so many seconds before the time limit.",
        panel="Preemption",
        metavar="S",
        minimum=10,
    )
    requeue: bool = option(True, "Queue a job again that was asked to stop, to go on from there.", panel="Preemption")

    @classmethod
    def from_other_files(cls, given: Mapping[str, Any], command: str) -> dict[str, Any]:
        """The `[slurm]` table of the command's own config file, and over it that of `--config`."""
        files = [config_of(given.get("words") or ()), given.get("config")]
        tables = [read_config(Path(file), cls, command, section=SLURM_TABLE) for file in files if file]
        return {field: value for table in tables for field, value in table.items()}

    @property
    def tasks(self) -> int | None:
        """The tasks of `--array`; None without.

        Raises:
            UserError: it is no `N` or `N%LIMIT`.
        """
        if self.array is None:
            return None
        count, percent, limit = self.array.partition("%")
        if not (count.isdecimal() and int(count) > 0 and (not percent or (limit.isdecimal() and int(limit) > 0))):
            raise UserError(f"{self.array!r} is no number of tasks", "--array", "give e.g. 6, or 69%8 for 8 at a time")
        return int(count)

    @property
    def seconds(self) -> int | None:
        """The time limit; None without, or with a limit in words (`infinite`).

        Raises:
            UserError: it is not written as Slurm reads it.
        """
        if self.time is None or self.time.lower() in {"infinite", "unlimited"}:
            return None
        found = _TIME.fullmatch(self.time)
        if found is None:
            raise UserError(f"{self.time!r} is no time", "--time", "give minutes, HH:MM:SS or D-HH:MM:SS")
        if found["alone"] is not None:
            numbers = [int(number) for number in found["alone"].split(":")]
            hours, minutes, seconds = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
            return hours * 3600 + minutes * 60 + seconds
        hours, minutes, seconds = [*(int(number) for number in found["of_day"].split(":")), 0, 0][:3]
        return int(found["days"]) * 86400 + hours * 3600 + minutes * 60 + seconds

    def check(self) -> None:
        """Options that contradict one another, or that a job file cannot hold."""
        _ = self.tasks
        seconds = self.seconds
        if seconds is not None and seconds <= self.signal:
            what = f"a limit of {seconds} s is over when the command is asked to save, {self.signal} s before it"
            raise UserError(what, "--time", "give a longer one, or a smaller --signal")
        if self.mount and self.container is None:
            raise UserError("there is no container", "--mount", "give --container IMAGE, or leave it out")
        for flag, values in self.as_config().items():
            for value in values if isinstance(values, list) else [values]:
                if isinstance(value, str) and any(ord(character) < 32 for character in value):
                    raise UserError("has a line break or another control character", f"--{flag}", "give one line")


def config_of(words: Sequence[str]) -> str | None:
    """The file that the words of a command name with `--config`; None where they name none."""
    for index, word in enumerate(words):
        if word == "--":
            return None
        if word == "--config" and index + 1 < len(words):
            return words[index + 1]
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


@dataclass(frozen=True, kw_only=True)
class SubmitOptions(JobOptions):
    """`vtk slurm submit`."""

    no_check: bool = option(False, "Do not try the command with --dry-run here before.", panel="Queue", recorded=False)


@dataclass(frozen=True, kw_only=True)
class StatusOptions(SpeechOptions):
    """`vtk slurm status`."""

    runs: tuple[Path, ...] = option(
        (), "Run folders [default: all in runs/ that have a job].", positional=True, metavar="RUN"
    )


@dataclass(frozen=True, kw_only=True)
class LogsOptions(SpeechOptions):
    """`vtk slurm logs`."""

    run: Path = option(..., "The run folder.", positional=True, metavar="RUN")
    lines: int = option(20, "So many of the last lines.", panel="Logs", short="-n", minimum=1)
    follow: bool = option(False, "Go on printing until the job has ended.", panel="Logs", short="-f", recorded=False)
    task: int | None = option(
        None, "Of an array: this task [default: the one that wrote last].", panel="Logs", metavar="I", minimum=0
    )

    def check(self) -> None:
        """Following has no end that one object could be printed at."""
        if self.follow and self.json:
            raise UserError("what goes on has no end to print at", "--follow --json", "leave one of them out")


@dataclass(frozen=True, kw_only=True)
class CancelOptions(SpeechOptions):
    """`vtk slurm cancel`."""

    runs: tuple[Path, ...] = option((), "Run folders.", positional=True, metavar="RUN")
