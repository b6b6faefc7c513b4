"""Timing side by side: every repetition runs ours, theirs and a copy, one after the other, on inputs that rotate.

A machine whose speed drifts then drifts for all three, and the caches hold nothing useful of the last repetition.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from vtk_kernels.bench.cases import CASES, Aim, Case
from vtk_kernels.dispatch import VARIABLE, Backend, which

_ROTATED_BYTES = 128 << 20
"""The inputs together are larger than any cache."""
_SECONDS = 8.0
_FEWEST, _MOST = 7, 50


@dataclass(frozen=True)
class Measurement:
    """One row: medians in seconds.

    Args:
        case: what was done.
        backend: what ran it.
        dtype: of the data.
        device: processor or card, and threads.
        ours, theirs: the operator, and the usual way.
        copy: `clone` of a tensor that moves as many bytes as the operator must.
        bytes: that many.
        aim: what was aimed at; nothing on the smallest size.
        shape: the size, for people.
    """

    case: Case
    backend: Backend
    dtype: torch.dtype
    device: str
    ours: float
    theirs: float
    copy: float
    bytes: int
    aim: Aim
    shape: str

    @property
    def share(self) -> float:
        """The operator's bytes a second over those of the copy; may pass 1 on a CPU, where a copy waits for pages."""
        return self.copy / self.ours


def measure(device: torch.device, *, smallest: bool = False) -> Iterator[Measurement]:
    """Time every case, on every backend that `device` has: one, and on a GPU each of those written for it.

    Args:
        device: "cpu" or a CUDA device.
        smallest: sizes and repetitions that take seconds; nothing is aimed at.
    """
    dtypes = (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    for case in CASES:
        aim = Aim() if smallest else case.cuda if device.type == "cuda" else case.cpu
        for backend in backends(case.operator, device):
            for dtype in dtypes:
                with _forced(backend):
                    times, moved = _time(case, device, dtype, smallest=smallest)
                shape = "the smallest size" if smallest else case.shape
                yield Measurement(case, backend, dtype, device_name(device), *times, moved, aim, shape)


def backends(operator: str, device: torch.device) -> list[Backend]:
    """The backend that is used for `operator` on `device`, and on a GPU the others that were written for it."""
    used = which(operator, device)
    if os.environ.get(VARIABLE) or device.type != "cuda":
        return [used]
    found = [used]
    for backend in get_args(Backend):
        with _forced(backend):
            try:
                which(operator, device)
            except ValueError:
                continue
        if backend not in (used, "reference"):
            found.append(backend)
    return found


def device_name(device: torch.device) -> str:
    """The card, or the processor with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {torch.get_num_threads()} threads"


@contextmanager
def _forced(backend: Backend) -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = backend
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _time(
    case: Case, device: torch.device, dtype: torch.dtype, *, smallest: bool
) -> tuple[tuple[float, float, float], int]:
    """Median seconds of (ours, theirs, copy), and the bytes moved."""
    torch.manual_seed(0)
    first = case.inputs(device, dtype, smallest)
    copies = 2 if smallest else max(3, -(-_ROTATED_BYTES // sum(each.nbytes for each in first)))
    inputs = [first, *(case.inputs(device, dtype, smallest) for _ in range(copies - 1))]
    moved = case.bytes(*first)
    plain = [torch.ones(moved // 2, dtype=torch.uint8, device=device) for _ in range(copies)]
    runs: list[Callable[[int], object]] = [
        lambda turn: case.ours(*inputs[turn]),
        lambda turn: case.theirs(*inputs[turn]),
        lambda turn: Tensor.clone(plain[turn]),
    ]
    for run in runs:  # allocation and compilation are paid here
        run(0)
    times: list[list[float]] = [[], [], []]
    end = time.perf_counter() + (0.0 if smallest else _SECONDS)
    fewest = 2 if smallest else _FEWEST
    while len(times[0]) < fewest or (time.perf_counter() < end and len(times[0]) < _MOST):
        turn = len(times[0])
        for position in range(3):
            which_run = (turn + position) % 3
            apart = turn + which_run * (copies // 2)  # ours and theirs do not warm the caches for each other
            times[which_run].append(_seconds(runs[which_run], apart % copies, device))
    ours, theirs, copy = map(statistics.median, times)
    return (ours, theirs, copy), moved


def _seconds(run: Callable[[int], object], turn: int, device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run(turn)
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    run(turn)
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1e3
