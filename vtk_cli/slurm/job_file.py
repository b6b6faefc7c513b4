"""The job file: a bash script for `sbatch` that saves before its time is over, comes back, and goes on.

`--signal` has Slurm send SIGUSR1 to the processes of the job step (not to this script) before the time limit;
preemption with a grace time sends SIGTERM. Both times `vtk` saves and ends with 75, and the script asks Slurm to queue
the job again under its number, so that the log is appended to and the run folder is the same. `scancel` ends the script
itself, and what it has not ended finds the job no longer running: such a job does not come back.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vtk_cli import __version__
from vtk_cli.slurm.options import JobOptions

FRUITLESS_ATTEMPTS = 5
"""A job that was asked to stop so often in a row before it had saved anything new is not queued again."""
FRUITFUL_S = 600
"""An attempt so long that ends with 75 has saved something, where its command keeps no checkpoints."""
LAST_WORDS_S = 600
"""How long the other processes of a step have when one has ended: a process that died leaves the others waiting."""

_FILLED_IN = re.compile(r"[\w./-]*\$SLURM_(JOB_ID|ARRAY_JOB_ID|ARRAY_TASK_ID)(/\d+)?")
"""A word in which bash fills in a number."""


@dataclass(frozen=True)
class JobFile:
    """What the job file is made from.

    Args:
        command: the words after `vtk`.
        options: what the job asks of the cluster.
        processes: on each machine.
        run: the folder whose `checkpoints` tell progress; bash expands `$SLURM_JOB_ID` in it where `is_named_by_job`.
        log: where what it says goes, with the patterns of sbatch.
        folder: the working directory.
        name: of the job.
        is_named_by_job: whether the number of the job is part of the run folder's name.
    """

    command: tuple[str, ...]
    options: JobOptions
    processes: int
    run: str
    log: str
    folder: Path
    name: str
    is_named_by_job: bool = False

    def text(self) -> str:
        """The file."""
        parts = [
            "#!/usr/bin/env bash",
            f"# A job of vtk {__version__} for Slurm: sbatch THIS_FILE",
            *self._directives(),
            "",
            *self._environment(),
            *(self._requeued() if self.options.requeue else self._step()),
        ]
        return "\n".join(parts) + "\n"

    def _directives(self) -> Iterator[str]:
        options = self.options
        count, _, limit = (options.array or "").partition("%")
        values = {
            "job-name": self.name,
            "partition": options.partition,
            "account": options.account,
            "qos": options.qos,
            "time": options.time,
            "nodes": options.nodes or 1,
            "ntasks-per-node": self.processes,
            "gpus-per-node": options.gpus,
            "cpus-per-task": options.cpus_per_task,
            "mem": options.mem,
            "constraint": options.constraint,
            "nodelist": options.nodelist,
            "exclude": options.exclude,
            "dependency": options.dependency,
            "array": count and f"0-{int(count) - 1}" + (f"%{limit}" if limit else ""),
            "mail-user": options.mail,
            "mail-type": options.mail and "END,FAIL,REQUEUE",
            "chdir": str(self.folder),
            "output": self.log,
            "open-mode": "append",
            "signal": f"USR1@{options.signal}",
        }
        for flag, value in values.items():
            if value:
                yield f"#SBATCH --{flag}={_quoted(str(value))}"
        yield "#SBATCH --requeue" if options.requeue else "#SBATCH --no-requeue"
        for line in options.extra:
            yield f"#SBATCH {line.removeprefix('#SBATCH').strip()}"

    def _environment(self) -> Iterator[str]:
        options = self.options
        lines: list[str] = []
        if options.modules:
            lines.append(f"module load {shlex.join(options.modules)} || exit 1")
        if options.venv is not None:
            lines.append("# shellcheck source=/dev/null")
            lines.append(f"source {shlex.quote(str(options.venv.expanduser() / 'bin' / 'activate'))} || exit 1")
        if options.cpus_per_task is not None:
            lines.append(f"export OMP_NUM_THREADS={options.cpus_per_task} SRUN_CPUS_PER_TASK={options.cpus_per_task}")
        lines += options.setup
        if lines:
            yield "# What every process finds."
            yield from lines
            yield ""

    def _step(self) -> Iterator[str]:
        """The processes: as many as the job has tasks, each the same command."""
        words = [f'"{word}"' if _FILLED_IN.fullmatch(word) else shlex.quote(word) for word in self.command]
        srun = ["srun", "--kill-on-bad-exit=0", f"--wait={LAST_WORDS_S}", *self._program()]
        yield f"{' '.join(srun)} \\"
        yield f"  {' '.join(words)}"

    def _program(self) -> list[str]:
        options = self.options
        if options.container is None:
            return ["vtk"] if options.venv is not None else [shlex.quote(sys.executable), "-m", "vtk_cli"]
        shown = [str(self.folder), *options.mount]
        if is_for_apptainer(options.container):
            binds = [part for folder in shown for part in ("--bind", shlex.quote(folder))]
            inside = ["--pwd", shlex.quote(str(self.folder)), *binds, shlex.quote(options.container)]
            return ["apptainer", "exec", *(["--nv"] if options.gpus else []), *inside, "vtk"]
        mounts = ",".join(folder if ":" in folder else f"{folder}:{folder}" for folder in shown)
        flags = {"image": options.container, "workdir": str(self.folder), "mounts": mounts}
        return [*(f"--container-{flag}={shlex.quote(value)}" for flag, value in flags.items()), "vtk"]

    def _requeued(self) -> Iterator[str]:
        run = f'"{self.run}"' if self.is_named_by_job else shlex.quote(self.run)
        is_array = self.options.array is not None
        yield f"run={run}"
        yield 'job="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"' if is_array else 'job="$SLURM_JOB_ID"'
        yield 'attempts="$run/slurm/fruitless-$job"'
        yield 'mkdir -p "$run/slurm" || exit 1'
        yield ""
        yield "# How far the trainings in the run folder have come; nothing where there is none."
        yield "saved() { find \"$run\" -path '*/checkpoints/step-*' | sed 's/\\(step-[0-9]*\\).*/\\1/' | sort -u; }"
        yield ""
        yield 'before="$(saved)"'
        yield from self._step()
        yield "code=$?"
        yield from _AFTERWARDS.splitlines()


_AFTERWARDS = f"""
# 75: asked to stop, and saved. 138, 143: asked to stop before there was anything to save. The rest is an end.
case "$code" in
  75 | 138 | 143) ;;
  *) rm -f "$attempts"; exit "$code" ;;
esac
# A job that scancel has ended must not come back.
if [ "$(squeue --noheader --format=%T --jobs="$job")" != RUNNING ]; then exit "$code"; fi
# Nor one that is stopped again and again before it gets anywhere.
after="$(saved)"
if [ "$after" != "$before" ] || {{ [ -z "$after" ] && [ "$code" = 75 ] && [ "$SECONDS" -ge {FRUITFUL_S} ]; }}; then
  rm -f "$attempts"
else
  echo "$code" >> "$attempts"
fi
if [ -f "$attempts" ] && [ "$(wc -l < "$attempts")" -ge {FRUITLESS_ATTEMPTS} ]; then
  echo "stopped {FRUITLESS_ATTEMPTS} times in a row before anything new was saved: not queued again" >&2
  rm -f "$attempts"
  exit "$code"
fi
echo "queued again, to go on from what was saved"
scontrol requeue "$job"
exit "$code"
"""


def is_for_apptainer(image: str) -> bool:
    """Whether a container image is named as apptainer names them: a `.sif` file or a URI."""
    return image.endswith(".sif") or re.match(r"[a-z]+://", image) is not None


def pattern(path: Path) -> str:
    """A path as sbatch's `--output` takes it, in which `%` begins a pattern."""
    return str(path).replace("%", "%%")


def _quoted(value: str) -> str:
    """A value in a line that sbatch reads, which knows quotes as a shell does."""
    return value if re.fullmatch(r"[\w%+,./:=@\[\]-]+", value) else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
