"""What of its jobs a run folder remembers: `slurm/job.json`, beside the job file and the logs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vtk_cli.engine.run_folder import RECORD, SLURM
from vtk_cli.errors import UserError
from vtk_cli.files import write_json

JOB_RECORD, JOB_FILE, JOB_CONFIG = "job.json", "job.sh", "config.toml"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class JobRecord:
    """A job that was submitted for a run.

    Args:
        job: its number.
        tasks: of its array; None: it is none.
        name: of the job.
        words: what it runs, after `vtk`.
        submitted: when, in UTC.
        earlier: the numbers of the jobs before it, the oldest first.
    """

    job: str
    tasks: int | None
    name: str
    words: tuple[str, ...]
    submitted: str
    earlier: tuple[str, ...] = ()

    @classmethod
    def read(cls, run: Path) -> JobRecord | None:
        """The last job of a run; also one whose job file somebody submitted by hand, which its run knows of."""
        found = _object(run / SLURM / JOB_RECORD)
        if found:
            return cls(**found | {name: tuple(found[name]) for name in ("words", "earlier")})
        made = _object(run / RECORD)
        if not made.get("slurm_job"):
            return None
        return cls(str(made["slurm_job"]), None, "", tuple(made.get("argv", ())[1:]), str(made.get("started", "")))

    def write(self, run: Path) -> None:
        """Put it into the run folder.

        Raises:
            JobError, UserError: see `files.disk_errors`.
        """
        write_json(run / SLURM / JOB_RECORD, asdict(self))


def job_of(run: Path) -> JobRecord:
    """The last job of a run.

    Raises:
        UserError: there is no such folder, or no job was submitted for it.
    """
    if not run.is_dir():
        raise UserError("is no folder", str(run), "name the folder of a run")
    record = JobRecord.read(run)
    if record is None:
        raise UserError(
            "no job was submitted for this run",
            str(run),
            f"submit one: vtk slurm submit -- COMMAND --resume {run}" if (run / RECORD).exists() else "",
        )
    return record


def runs_with_jobs(root: Path) -> list[Path]:
    """The run folders under `root` for which a job was submitted, the last submitted last."""
    found = [path.parents[1] for path in root.glob(f"*/*/{SLURM}/{JOB_RECORD}")]
    return sorted(found, key=lambda run: (submitted_at(run), run))


def submitted_at(run: Path) -> str:
    """When the last job of a run was submitted, in UTC; empty where there is none."""
    record = JobRecord.read(run)
    return record.submitted if record else ""


def status_of(run: Path) -> str:
    """How the run says it stands, `preempted`; empty where it has not begun."""
    return str(_object(run / RECORD).get("status", ""))


def progress_of(run: Path) -> Mapping[str, float | None]:
    """The last row of the run's `metrics.jsonl`; empty where there is none."""
    try:
        lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # it is being written
            continue
        if isinstance(row, dict):
            return row
    return {}


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
