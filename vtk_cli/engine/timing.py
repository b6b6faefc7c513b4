"""Two ways of doing the same work, timed in turns: what else the machine does then slows both alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch


def finish(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` takes, with what it gives the device to do."""
    finish(device)
    start = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - start


def in_turns(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Medians of what both return, seconds as a rule, taken in turns after one round that does not count."""
    ours(), theirs()
    taken = [(ours(), theirs()) for _ in range(rounds)]
    return median(one for one, _ in taken), median(other for _, other in taken)
