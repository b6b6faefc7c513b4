"""What Slurm's own programs are asked: `sbatch`, `squeue`, `sacct`, `scontrol`, `scancel`."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.errors import JobError, UserError

_FIELDS = ("JobArrayID:40", "State:30", "TimeUsed:30", "RestartCnt:12", "NodeList:200", "Reason:60")
_UNREACHABLE = ("Unable to contact", "Zero Bytes were transmitted", "Socket timed out")
_GONE = "Invalid job id"
ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)
"""States from which a job does not come back by itself."""


@dataclass(frozen=True)
class TaskState:
    """What Slurm knows of a job, or of one task of an array.

    Args:
        job: its number, `12` or `12_3`.
        state: `RUNNING`, in Slurm's words.
        elapsed: since its last start, `1-02:03:04` or `03:04`.
        host: where it runs; empty: nowhere.
        restarts: how often it was queued again; None where Slurm does not say.
        reason: why it waits, in Slurm's words; empty where it does not.
    """

    job: str
    state: str
    elapsed: str
    host: str
    restarts: int | None = None
    reason: str = ""

    @property
    def number(self) -> str:
        """Of the job, without the task."""
        return self.job.partition("_")[0]

    @property
    def has_ended(self) -> bool:
        """Whether it is over for good."""
        return self.state in ENDED


def require_slurm() -> None:
    """Refuse a machine from which no job can be submitted.

    Raises:
        UserError: there is no Slurm here.
    """
    _require("sbatch")


def submit_job(script: Path) -> str:
    """Submit a job file, held, so that nothing starts before it is on record.

    Returns:
        The job's number.

    Raises:
        UserError: there is no Slurm here, or it does not take the job.
        JobError: Slurm does not answer.
    """
    return _said("sbatch", "--parsable", "--hold", str(script)).partition(";")[0]


def release_job(job: str) -> None:
    """Let a held job start when its turn comes.

    Raises:
        UserError, JobError: see `submit_job`.
    """
    _said("scontrol", "release", job)


def states_of(jobs: Sequence[str]) -> dict[str, list[TaskState]]:
    """The tasks of each job that Slurm still knows, from the queue, else from the accounts where they are kept.

    Raises:
        UserError: there is no Slurm here.
        JobError: Slurm does not answer.
    """
    found: dict[str, list[TaskState]] = {}
    if jobs:
        for task in (*_queued(jobs), *_accounted(jobs)):
            known = found.setdefault(task.number, [])
            if task.job not in {other.job for other in known}:
                known.append(task)
    return found


def log_of(job: str) -> Path | None:
    """The file to which a job writes, None where Slurm no longer knows it."""
    done = _asked("scontrol", "--oneliner", "show", "job", job)
    named = re.search(r" StdOut=(\S+)", done.stdout)
    return Path(named[1]) if named else None


def cancel_job(job: str) -> None:
    """End a job and see that it is not queued again; its processes are asked to save first.

    Raises:
        UserError, JobError: see `submit_job`.
    """
    _asked("scontrol", "update", f"JobId={job}", "Requeue=0")  # refused where it has just ended
    _said("scancel", job)


def _queued(jobs: Sequence[str]) -> list[TaskState]:
    form = "|,".join(_FIELDS)
    words = ("--noheader", "--states=all", "--array", f"--jobs={','.join(jobs)}", f"--Format={form}")
    done = _asked("squeue", *words)
    if done.returncode and _GONE not in done.stderr:
        raise _refusal("squeue", done.stderr)
    tasks = []
    for line in done.stdout.splitlines():
        job, state, elapsed, restarts, host, reason = (cell.strip() for cell in line.split("|"))
        waits = state == "PENDING" and reason != "None"
        tasks.append(TaskState(job, state, elapsed, host, int(restarts), reason if waits else ""))
    return tasks


def _accounted(jobs: Sequence[str]) -> list[TaskState]:
    """What the accounts say; nothing where this cluster keeps none."""
    if shutil.which("sacct") is None:
        return []
    form = "--format=JobID,State,Elapsed,NodeList"
    done = _asked("sacct", "--allocations", "--noheader", "--parsable2", f"--jobs={','.join(jobs)}", form)
    tasks = []
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        job, state, elapsed, host = line.split("|")
        if "[" not in job:  # tasks that wait, which the queue shows one by one
            word = state.partition(" ")[0]  # CANCELLED by 1000
            tasks.append(TaskState(job, word, elapsed, "" if host == "None assigned" else host))
    return tasks


def _asked(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    _require(program)
    return subprocess.run([program, *words], capture_output=True, text=True, check=False)


def _require(program: str) -> None:
    if shutil.which(program) is None:
        raise UserError(
            f"there is no Slurm here: `{program}` is not installed",
            fix="run this where jobs are submitted; `vtk slurm script` works anywhere",
        )


def _said(program: str, *words: str) -> str:
    done = _asked(program, *words)
    if done.returncode:
        raise _refusal(program, done.stderr)
    return done.stdout.strip()


def _refusal(program: str, said: str) -> UserError | JobError:
    """Slurm's own words in one line."""
    lines = [re.sub(r"^\S+: (error|fatal): ", "", line).strip() for line in said.splitlines() if line.strip()]
    message = "; ".join(dict.fromkeys(lines)) or "no word of why"
    if any(sign in said for sign in _UNREACHABLE):
        return JobError(f"{program}: Slurm does not answer: {message}")
    return UserError(message, program)
