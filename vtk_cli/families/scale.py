"""`vtk bench scale`: what a second process brings to the same training, and what saving the state takes from it.

The training is `vtk train` itself, started by torchrun; its global batch, and so its updates, are the same however
many processes share it.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from statistics import mean, median

import torch

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device
from vtk_cli.families.scale_saving import saving_row
from vtk_cli.families.scale_training import DEFAULT, LARGE, LARGER, SMALLEST, Measured, Start, Training, train_once
from vtk_cli.reports.evidence import BenchRow

EFFICIENCY_TARGET = 0.8
"""The speed-up by N processes, over N, that is aimed at; each has as many threads, or one GPU, as the one alone."""


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[BenchRow]:
    """Both, in turns; the medians. To be run where nothing else runs: the processes need all cores.

    Raises:
        JobError: a training failed.
    """
    rounds = 1 if smallest else 3
    rows = [row for work in _work(device, smallest=smallest) for row in _process_rows(work, rounds, device, console)]
    networks = ("smallest",) if smallest else ("smallest", "ViT-B")
    return [*rows, *(saving_row(name, device, saves=2 if smallest else 7) for name in networks)]


def _work(device: torch.device, *, smallest: bool) -> tuple[Training, ...]:
    """What is trained; nothing where the device is one that several processes cannot share."""
    if device.type == "cpu":
        return (SMALLEST,) if smallest else (DEFAULT, LARGER)
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        return (SMALLEST,) if smallest else (LARGE,)
    return ()


def _starts(work: Training, device: torch.device) -> list[Start]:
    """Several processes; one with as much as each of them; and on a CPU one with as much as all."""
    if device.type == "cuda":
        return [Start(torch.cuda.device_count()), Start(1)]
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    starts = [Start(2, threads), Start(1, threads), Start(1, 2 * threads)]
    return starts if work is not SMALLEST else starts[:2]


def _process_rows(work: Training, rounds: int, device: torch.device, console: Console) -> list[BenchRow]:
    """The training by several processes against each way of having one."""
    starts = _starts(work, device)
    measured: dict[Start, list[Measured]] = {start: [] for start in starts}
    with console.progress(f"training {work.name}", rounds * len(starts)) as progress:
        for _ in range(rounds):
            for start in starts:
                measured[start].append(train_once(work, start, device))
                progress.advance(status=str(start))
    several, *single = starts
    return [_row(work, (several, measured[several]), (one, measured[one]), device) for one in single]


def _row(
    work: Training, ours: tuple[Start, list[Measured]], theirs: tuple[Start, list[Measured]], device: torch.device
) -> BenchRow:
    """Where the single process has what each of the several has, the ratio is a speed-up."""
    (several, shared), (single, alone) = ours, theirs
    seconds, single_seconds = (median(one.seconds for one in runs) for runs in (shared, alone))
    is_speed_up = several.threads == single.threads
    meaning = "the same cores: above 1, processes use them better than threads"
    if is_speed_up:
        meaning = f"efficiency {single_seconds / seconds / several.processes:.0%}: the ratio over {several.processes}"
    losses = " and ".join(f"{mean(one.loss for one in runs):.4f}" for runs in (shared, alone))
    return BenchRow(
        name=f"an epoch of `vtk train`, {work.name}, by {several}",
        ours=seconds,
        theirs=single_seconds,
        peer=str(single),
        target=EFFICIENCY_TARGET * several.processes if is_speed_up and work.is_judged else None,
        device=describe_device(device).rpartition(", ")[0] or describe_device(device),
        versions={name: version(name) for name in ("torch", "timm")},
        note=f"{meaning}; validation losses {losses}",
    )
