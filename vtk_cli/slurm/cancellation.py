"""Ending jobs so that their runs can go on another day."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.slurm.options import CancelOptions
from vtk_cli.slurm.records import job_of
from vtk_cli.slurm.scheduler import cancel_job, states_of


def cancel_runs(options: CancelOptions, console: Console) -> None:
    """End the jobs of runs: nothing is queued again; a run that was at work saves, and can be resumed.

    Raises:
        UserError: a run has no job, or its job is over; then no job is ended.
        JobError: Slurm does not answer.
    """
    jobs = {run: job_of(run).job for run in options.runs}
    if not jobs:
        raise UserError("there is no run to cancel", fix="name run folders: vtk slurm cancel RUN")
    states = states_of([*jobs.values()])
    for run, job in jobs.items():
        tasks = states.get(job, [])
        if all(task.has_ended for task in tasks):
            became = f": {tasks[0].state}" if tasks else ""
            raise UserError(f"job {job} is no longer in the queue{became}", str(run))
    for run, job in jobs.items():
        cancel_job(job)
        console.text(f"job {job} is cancelled   {run}")
    console.emit({"cancelled": [{"run": str(run), "job": job} for run, job in jobs.items()]})
