"""What a job has said, and goes on saying."""

from __future__ import annotations

import math
import time
from collections import deque
from pathlib import Path
from typing import TextIO

from vtk_cli.console import Console
from vtk_cli.engine.run_folder import SLURM
from vtk_cli.errors import UserError
from vtk_cli.slurm.options import LogsOptions
from vtk_cli.slurm.records import JobRecord, job_of
from vtk_cli.slurm.scheduler import log_of, states_of

_LOOK_S = 0.5
"""How often a log that is followed is looked at."""
_ASK_S = 5.0
"""How often Slurm is asked whether its job is over."""


def show_logs(options: LogsOptions, console: Console) -> None:
    """Print the last lines of a job's log; with `follow` go on until the job is over.

    Raises:
        UserError: the run has no job, or nothing was written yet.
        JobError: Slurm does not answer.
    """
    record = job_of(options.run)
    log = log_file(options.run, record, options.task)
    if log is None:
        task = "" if options.task is None else f" (task {options.task})"
        what = f"job {record.job}{task} has written nothing yet"
        raise UserError(what, str(options.run), f"see vtk slurm status {options.run}")
    with log.open(encoding="utf-8", errors="replace") as stream:
        lines = [line.rstrip("\n") for line in deque(stream, maxlen=options.lines)]
        for line in lines:
            console.text(line)
        console.emit({"log": str(log), "lines": lines})
        if options.follow:
            _follow(stream, record.job, console)


def _follow(stream: TextIO, job: str, console: Console) -> None:
    """Print what is written behind `stream` until the job is over."""
    asked, is_over = -math.inf, False
    while not is_over:
        if time.monotonic() - asked > _ASK_S:
            asked = time.monotonic()
            is_over = all(task.has_ended for task in states_of([job]).get(job, []))
        for line in stream:  # after the question: what was written before the end is not missed
            console.text(line.rstrip("\n"))
        if not is_over:
            time.sleep(_LOOK_S)


def log_file(run: Path, record: JobRecord, task: int | None) -> Path | None:
    """Where a run's job writes, or one task of its array; the one that wrote last where none is named."""
    name = f"slurm-{record.job}" + ("*" if task is None else f"_{task}")
    found = [path for path in (run / SLURM).glob(f"{name}.out") if path.is_file()]
    if not found and record.name == "":  # a job file that somebody submitted by hand
        named = log_of(record.job)
        found = [named] if named is not None and named.is_file() else []
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
