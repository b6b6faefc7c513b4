"""What torchrun, srun and `--nproc` tell a process of its place among those that they started with it."""

from __future__ import annotations

import os
import re
import zlib


def is_launched() -> bool:
    """Whether torchrun, srun or `--nproc` started this process as one of several.

    An sbatch script sees `SLURM_NTASKS` too, but only srun sets `SLURM_STEP_NUM_TASKS`: a plain `vtk` inside the
    script is alone.
    """
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"]) > 1
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def adopt_slurm_step() -> None:
    """Name the processes of a Slurm step as torchrun would: they meet at its first host, each step at its own port.

    Nothing changes where they have such names.
    """
    if "WORLD_SIZE" in os.environ:
        return
    step = os.environ
    port = 20000 + zlib.crc32(f"{step.get('SLURM_JOB_ID')}.{step.get('SLURM_STEP_ID')}".encode()) % 20000
    os.environ |= {
        "WORLD_SIZE": step["SLURM_STEP_NUM_TASKS"],
        "RANK": step["SLURM_PROCID"],
        "LOCAL_RANK": step.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": step.get("MASTER_ADDR") or first_host(step.get("SLURM_STEP_NODELIST", "localhost")),
        "MASTER_PORT": step.get("MASTER_PORT") or str(port),
    }


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: `gpu[003-007,009],cpu1` -> `gpu003`."""
    bracketed = re.match(r"([^,\[]*)\[([^\],-]+)[^\]]*\]([^,\[]*)", nodes)
    return "".join(bracketed.groups()) if bracketed else nodes.partition(",")[0]
