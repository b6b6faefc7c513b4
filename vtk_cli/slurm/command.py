"""`vtk slurm`: the face of its verbs. Options in, result out."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.options import add_command, new_app
from vtk_cli.slurm.options import CancelOptions, JobOptions, LogsOptions, StatusOptions, SubmitOptions


def script(options: JobOptions, console: Console) -> None:
    """Print the job file of a command, to be read, changed, and submitted with sbatch.

    Nothing is written, and no Slurm is needed here. The options may stand in the table [slurm] of the file that the
    command gets with --config, with the same names; flags win over it.
    """
    from vtk_cli.slurm.submission import print_script

    print_script(options, console)


def submit(options: SubmitOptions, console: Console) -> None:
    """Submit a command as a job that saves before its time is over, is queued again, and goes on.

    The command is tried with --dry-run first. Its run folder is made now, and holds the job file, a copy of the
    --config file and the log in slurm/. Slurm starts one process a GPU for commands that train. SIGUSR1 comes --signal
    seconds before the time limit, SIGTERM when the job is preempted: the command saves, ends with 75, and the job is
    queued again under its number; not after scancel, and not when it was stopped five times in a row without getting
    anywhere: no new checkpoint, or for commands that keep none, not ten minutes of work.
    """
    from vtk_cli.slurm.submission import submit as submit_command

    submit_command(options, console)


def status(options: StatusOptions, console: Console) -> None:
    """Show how the jobs of run folders stand: in the queue, and by what the run says of itself."""
    from vtk_cli.slurm.status import show_status

    show_status(options, console)


def logs(options: LogsOptions, console: Console) -> None:
    """Print what the job of a run has said; with --follow, what it goes on saying."""
    from vtk_cli.slurm.logs import show_logs

    show_logs(options, console)


def cancel(options: CancelOptions, console: Console) -> None:
    """End the jobs of runs: none is queued again, and each run can be gone on with (--resume)."""
    from vtk_cli.slurm.cancellation import cancel_runs

    cancel_runs(options, console)


app = new_app("Any command as a job of a Slurm cluster: preempted, requeued and resumed without loss.")
add_command(
    app,
    JobOptions,
    script,
    name="script",
    epilog="Examples:  vtk slurm script --gpus 1 --time 12:00:00 -- train   ·  "
    " vtk slurm script --nodes 4 --gpus 8 --cpus-per-task 8 --time 3-00 -- train imagenet --recipe deit3-b-400"
    " > job.sh",
)
add_command(
    app,
    SubmitOptions,
    submit,
    name="submit",
    epilog="Examples:  vtk slurm submit --gpus 1 --time 12:00:00 -- train   ·  "
    " vtk slurm submit --gpus 8 --cpus-per-task 8 --time 2-00 -- detect train coco/   ·  "
    " vtk slurm submit --nodes 4 --gpus 8 --cpus-per-task 8 --time 3-00 -- train imagenet --recipe deit3-b-400   ·  "
    " vtk slurm submit --array 69%16 --gpus 1 --time 4:00:00 -- similarity --list nets.txt --data val/   ·  "
    " vtk slurm submit --partition preemptible --gpus 8 --time 1-00 -- train --config deit.toml",
)
add_command(
    app,
    StatusOptions,
    status,
    name="status",
    epilog="Examples:  vtk slurm status   ·   vtk slurm status RUN --json",
)
add_command(app, LogsOptions, logs, name="logs", epilog="Examples:  vtk slurm logs --follow RUN")
add_command(app, CancelOptions, cancel, name="cancel", epilog="Examples:  vtk slurm cancel RUN")
