"""How the jobs of run folders stand: what Slurm knows beside what the run says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.slurm.options import StatusOptions
from vtk_cli.slurm.records import job_of, progress_of, runs_with_jobs, status_of
from vtk_cli.slurm.scheduler import TaskState, states_of

GONE = "GONE"
"""The state of a job that Slurm has forgotten."""


@dataclass(frozen=True)
class RunStatus:
    """How a run and its job stand.

    Args:
        run: the folder.
        job: the number of its last job.
        state: of the job, in Slurm's words, `GONE` where Slurm has forgotten it; of an array how many tasks are in
            each, `2 RUNNING, 4 COMPLETED`.
        status: of the run, in its own; empty where it has not begun.
        progress: the last row of its metrics.
        restarts: how often Slurm queued the job again, all tasks together; None where Slurm has forgotten.
        host: where the job runs.
        elapsed: since its last start; of an array, of the task longest at work.
        reason: why it waits.
    """

    run: str
    job: str
    state: str
    status: str
    progress: dict[str, float | None]
    restarts: int | None
    host: str
    elapsed: str
    reason: str


def show_status(options: StatusOptions, console: Console) -> None:
    """Print the table, or with `--json` the rows of it.

    Raises:
        UserError: a folder has no job, or there is none at all, or there is no Slurm here.
        JobError: Slurm does not answer.
    """
    runs = [*options.runs] or runs_with_jobs(Path("runs"))
    if not runs:
        raise UserError("no run here has a job", "runs", "submit one: vtk slurm submit -- COMMAND, or name run folders")
    jobs = [job_of(run).job for run in runs]
    states = states_of(jobs)
    rows = [run_status(run, job, states.get(job, ())) for run, job in zip(runs, jobs, strict=True)]
    columns = ("run", "job", "state", "run is", "progress", "restarts", "host", "elapsed")
    console.table("", columns, [_cells(row) for row in rows])
    console.emit({"runs": [asdict(row) for row in rows]})


def run_status(run: Path, job: str, tasks: Sequence[TaskState]) -> RunStatus:
    """What is known of a run and of its job.

    Args:
        run: the folder.
        job: the number of its job.
        tasks: what Slurm knows of it; none: it has forgotten.
    """
    counts = Counter(task.state for task in tasks)
    states = ", ".join(f"{number} {state}" if len(tasks) > 1 else state for state, number in counts.items())
    known = [task.restarts for task in tasks if task.restarts is not None]
    return RunStatus(
        run=str(run),
        job=job,
        state=states or GONE,
        status=status_of(run),
        progress=dict(progress_of(run)),
        restarts=sum(known) if known else None,
        host=",".join(dict.fromkeys(task.host for task in tasks if task.host)),
        elapsed=max((task.elapsed for task in tasks), key=_seconds, default=""),
        reason=", ".join(dict.fromkeys(task.reason for task in tasks if task.reason)),
    )


def _cells(row: RunStatus) -> tuple[object, ...]:
    state = f"{row.state} ({row.reason})" if row.reason else row.state
    shown = {key: value for key, value in row.progress.items() if key in {"epoch", "loss"}} or dict(
        [*row.progress.items()][:2]
    )
    progress = " ".join(f"{key} {'?' if value is None else f'{value:.4g}'}" for key, value in shown.items())
    restarts = "" if row.restarts is None else row.restarts
    return row.run, row.job, state, row.status, progress, restarts, row.host, row.elapsed


def _seconds(elapsed: str) -> int:
    """`1-02:03:04` or `03:04` in seconds; 0 where it is neither (`INVALID`)."""
    days, dash, rest = elapsed.rpartition("-")
    numbers = [days if dash else "0", *rest.split(":")]
    if not all(number.isdecimal() for number in numbers):
        return 0
    total = 0
    for number in numbers[1:]:
        total = 60 * total + int(number)
    return int(numbers[0]) * 86400 + total
