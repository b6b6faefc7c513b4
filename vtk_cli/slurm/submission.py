"""From the words of a command to a job in the queue."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import date
from itertools import count
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.engine.run_folder import SLURM, file_name
from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path, lock, make_folder, write_text
from vtk_cli.slurm.invocation import Invocation, read_invocation, try_dry
from vtk_cli.slurm.job_file import JobFile, pattern
from vtk_cli.slurm.options import JobOptions, SubmitOptions, config_of
from vtk_cli.slurm.records import JOB_CONFIG, JOB_FILE, JobRecord, now
from vtk_cli.slurm.scheduler import release_job, require_slurm, states_of, submit_job


def print_script(options: JobOptions, console: Console) -> None:
    """Print the job file of a command, for `sbatch` by hand. Nothing is written, and no Slurm is needed.

    Raises:
        UserError: the words are no command, or the options do not go together.
    """
    invocation = read_invocation(options.words)
    processes = processes_on_a_machine(options, invocation)
    run, is_named_by_job = _given_run(invocation), False
    if run is None:
        number = "SLURM_JOB_ID" if options.array is None else "SLURM_ARRAY_JOB_ID"
        run, is_named_by_job = Path("runs", _folder_name(invocation), f"slurm-${number}"), True
        if invocation.makes_run_folder:
            invocation = invocation.with_flags("--out", str(run))
    file = JobFile(
        command=_shared(invocation, options).words,
        options=options,
        processes=processes,
        run=str(run),
        log=_log_name(options),
        folder=Path.cwd(),
        name=_job_name(options, invocation),
        is_named_by_job=is_named_by_job,
    )
    text = file.text()
    console.text(text.rstrip("\n"))
    console.emit({"script": text, "command": list(file.command), "run": None if is_named_by_job else str(run)})


def submit(options: SubmitOptions, console: Console) -> None:
    """Try the command, write its job file into the run folder, submit it, and tell its number and the folder.

    Raises:
        UserError: the words are no command, the command refuses its input, there is no Slurm here, Slurm refuses the
            job, or a job is at work in the folder.
        JobError: Slurm does not answer, or the disk is full.
    """
    invocation = read_invocation(options.words)
    processes = processes_on_a_machine(options, invocation)
    require_slurm()
    run = _given_run(invocation)
    if run is not None:
        _earlier_jobs(run)  # a job that is at work there is the first to be told of
    if not options.no_check:
        try_dry(invocation)
    with ExitStack() as undo:
        if run is None:
            run = _reserve(_folder_name(invocation), options.job_name or SLURM)
            undo.callback(_remove_if_empty, run)
            if invocation.makes_run_folder:
                invocation = invocation.with_flags("--out", str(run))
        elif not run.exists():
            undo.callback(_remove_if_empty, run)
        folder = run / SLURM
        if not folder.exists():
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        make_folder(folder)
        with lock(folder / ".lock", busy="another job is being submitted for this run", wait=False):
            earlier = _earlier_jobs(run)
            invocation = _with_kept_config(invocation, folder)
            name = _job_name(options, invocation)
            file = JobFile(
                command=_shared(invocation, options).words,
                options=options,
                processes=processes,
                run=str(run),
                log=f"{pattern(folder.resolve())}/{_log_name(options)}",
                folder=Path.cwd(),
                name=name,
            )
            write_text(folder / JOB_FILE, file.text())
            job = submit_job(folder / JOB_FILE)
            JobRecord(job, options.tasks, name, file.command, now(), earlier).write(run)
            undo.pop_all()
            release_job(job)
    tasks = "" if options.tasks is None else f" of {options.tasks} tasks"
    console.text(f"job {job}{tasks}   {run}")
    console.note(f"vtk slurm status {run}   ·   vtk slurm logs -f {run}   ·   vtk slurm cancel {run}")
    console.emit({"job": job, "tasks": options.tasks, "run": str(run), "script": str(folder / JOB_FILE)})


def processes_on_a_machine(options: JobOptions, invocation: Invocation) -> int:
    """How many processes of the command each machine gets.

    Raises:
        UserError: the command does not share its work as the options say.
    """
    command = f"`vtk {' '.join(invocation.path)}`"
    started_by_itself = getattr(invocation.options, "nproc", None) or 1
    is_shared = invocation.runs_as_several and started_by_itself == 1
    chosen = options.ntasks_per_node or ((options.gpus or 1) if is_shared else 1)
    if options.array is not None:
        if not invocation.has("shard"):
            raise UserError(f"{command} has no pieces that tasks could share", "--array", "leave it out")
        if getattr(invocation.options, "shard", None) is not None:
            raise UserError("the tasks of an array have their shards from it", "--shard", "leave it out")
    if (options.nodes or 1) * chosen > 1:
        flag = "--ntasks-per-node" if chosen > 1 else "--nodes"
        if started_by_itself > 1:
            raise UserError("the processes are started by the command and by Slurm", "--nproc", "give it once")
        if not invocation.runs_as_several:
            fix = "spread its pieces with --array N" if invocation.has("shard") else "leave it out"
            raise UserError(f"{command} is one process", flag, fix)
    return chosen


def _shared(invocation: Invocation, options: JobOptions) -> Invocation:
    """The command as each task of the array runs it: bash fills in which it is."""
    if options.tasks is None:
        return invocation
    read_invocation(invocation.with_flags("--shard", f"0/{options.tasks}").words)  # some verbs take it in part only
    return invocation.with_flags("--shard", f"$SLURM_ARRAY_TASK_ID/{options.tasks}")


def _given_run(invocation: Invocation) -> Path | None:
    """The run folder that the command was told."""
    if not invocation.makes_run_folder:
        return None
    run = getattr(invocation.options, "resume", None) or getattr(invocation.options, "out", None)
    return None if run is None else Path(run)


def _folder_name(invocation: Invocation) -> str:
    return file_name(" ".join(invocation.path)) if invocation.makes_run_folder else SLURM


def _job_name(options: JobOptions, invocation: Invocation) -> str:
    return options.job_name or f"vtk-{'-'.join(invocation.path)}"


def _log_name(options: JobOptions) -> str:
    return "slurm-%j.out" if options.array is None else "slurm-%A_%a.out"


def _reserve(command: str, name: str) -> Path:
    """Make the first of `runs/COMMAND/DATE-NAME`, `...-2`, `...-3` that is not there."""
    base = Path("runs", command, f"{date.today().isoformat()}-{file_name(name)}")
    make_folder(base.parent)
    for number in count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        with suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError("unreachable: the numbers do not end")


def _earlier_jobs(run: Path) -> tuple[str, ...]:
    """The numbers of the run's jobs so far.

    Raises:
        UserError: the last is still in the queue.
    """
    record = JobRecord.read(run)
    if record is None:
        return ()
    if any(not task.has_ended for task in states_of([record.job]).get(record.job, ())):
        what = f"job {record.job} is at work on this run"
        raise UserError(what, str(run), f"wait for it, or end it: vtk slurm cancel {run}")
    return (*record.earlier, record.job)


def _with_kept_config(invocation: Invocation, folder: Path) -> Invocation:
    """The command with its config file as it is now, whatever becomes of the file while the job waits."""
    config = config_of(invocation.rest)
    kept = folder / JOB_CONFIG
    if config is None:
        return invocation
    if not (kept.exists() and kept.samefile(config)):
        with atomic_path(kept) as temporary:
            shutil.copyfile(config, temporary)
    return replace(invocation, rest=invocation.with_config(str(kept)).rest)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
