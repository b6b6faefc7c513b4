"""Programs beside Python: the compilers, and Slurm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from vtk_cli.doctor.findings import Findings, Line, Missing

_COMPILERS = ("c++", "g++", "clang++")
_PACKAGES: Mapping[str, Mapping[str, str]] = {
    "apt-get": {"compiler": "apt install build-essential", "slurm": "apt install slurm-client"},
    "dnf": {"compiler": "dnf install gcc-c++", "slurm": "dnf install slurm"},
    "zypper": {"compiler": "zypper install gcc-c++", "slurm": "zypper install slurm-node"},
    "pacman": {"compiler": "pacman -S base-devel", "slurm": "pacman -S slurm-llnl"},
}
_TIMEOUT_S = 10
_NO_SUBMITTING = "vtk slurm cannot submit from this machine"


def compilers(*, kernels_built: bool) -> Findings:
    """The C++ compiler, which is needed where the kernels are not built, and CUDA's.

    Args:
        kernels_built: whether the compiled kernels are there.
    """
    chosen = os.environ.get("CXX", "")
    found = next((path for name in (chosen, *_COMPILERS) if name and (path := shutil.which(name))), None)
    nvcc = shutil.which("nvcc")
    lines = (
        Line("compiler", "C++ compiler", _with_version(found) if found else "none on PATH"),
        Line("nvcc", "nvcc", _with_version(nvcc) if nvcc else "none on PATH; not needed: kernels bring their own"),
    )
    if kernels_built:
        return Findings(lines)
    again = "pip install --force-reinstall --no-deps --no-cache-dir vtk-cli"
    mend = again if found else f"{_installing('compiler')} && {again}"
    what = "compiled kernels" if found else "C++ compiler and compiled kernels"
    return Findings(lines, (Missing(what, "the fused operators run as plain torch on a CPU, slower", mend),))


def slurm() -> Findings:
    """Slurm's programs, its version, and the job that this process is part of.

    Its programs say nothing, not even their version, where they find no configuration of a cluster.
    """
    there = {name: shutil.which(name) for name in ("sbatch", "srun")}
    version = next((_said(path, "--version") for path in there.values() if path), None)
    job = os.environ.get("SLURM_JOB_ID")
    value = {"version": version or None, **there, "job": job}
    programs = ", ".join(name for name, path in there.items() if path)
    words = f"{version or 'no configuration'}, {programs}" if programs else "none on PATH"
    lines = (Line("slurm", "Slurm", f"{words}; {_job_in_words(job)}", value),)
    if not programs:
        return Findings(lines, (Missing("Slurm", _NO_SUBMITTING, _installing("slurm")),))
    if not all(there.values()):
        lacking = next(name for name, path in there.items() if path is None)
        problem = f"Slurm is here but {lacking} is not on PATH; mend it with: {_installing('slurm')}"
        return Findings(lines, (), (problem,))
    mend = "export SLURM_CONF=FILE, a copy of the cluster's slurm.conf"
    return Findings(lines, () if version else (Missing("Slurm's configuration", _NO_SUBMITTING, mend),))


def _job_in_words(job: str | None) -> str:
    if job is None:
        return "not inside a job"
    process, count = os.environ.get("SLURM_PROCID"), os.environ.get("SLURM_NTASKS")
    return f"inside job {job}" + (f", process {process} of {count}" if process and count else "")


def _installing(what: str) -> str:
    """The command of this system's package manager, or Debian's where it is another."""
    manager = next((name for name in _PACKAGES if shutil.which(name)), "apt-get")
    return _PACKAGES[manager][what]


def _with_version(program: str) -> str:
    number = re.findall(r"\d+\.\d+(?:\.\d+)?", _said(program, "--version"))
    return f"{program}, version {number[-1]}" if number else str(Path(program))


def _said(program: str, *arguments: str) -> str:
    """What a program prints; empty where it cannot be run or does not end."""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, errors="replace", check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if not done.returncode else ""
