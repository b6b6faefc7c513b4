"""Options of training and evaluating by several processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vtk_cli.options import RunOptions, SpeechOptions, option

Parallel = Literal["ddp", "fsdp"]
"""`ddp`: whole weights in every process; `fsdp`: a part in each."""

PARALLELS: tuple[Parallel, ...] = get_args(Parallel)


@dataclass(frozen=True, kw_only=True)
class ProcessOptions(SpeechOptions):
    """How many processes do it, and where."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    nproc: int | None = option(
        None,
        "Start so many processes here, one a GPU; torchrun and srun start them too.",
        panel="Scale",
        metavar="N",
        minimum=1,
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class SharedTrainingOptions(ProcessOptions):
    """How the processes of one training share it."""

    parallel: Parallel = option(
        "ddp", "ddp: whole weights in each process; fsdp: a part, for networks too large for one GPU.", panel="Scale"
    )
    sync_bn: bool = option(False, "Batch normalisation over all processes, not in each alone.", panel="Scale")


@dataclass(frozen=True, kw_only=True)
class ParallelOptions(SharedTrainingOptions, RunOptions):
    """Of a run that several processes share."""
