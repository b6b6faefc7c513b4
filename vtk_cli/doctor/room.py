"""Where things go and how much room there is: threads, the cache, the disks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from vtk_cli.doctor.findings import Findings, Line, Missing
from vtk_cli.errors import VtkError
from vtk_cli.files import CACHE_VARIABLE, cache_folder, temporary_path

LITTLE = 1e9
"""Free bytes below which a run of any size is likely to fill the disk."""


def threads() -> Findings:
    """How many threads torch uses, and who says so."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    chosen = os.environ.get("OMP_NUM_THREADS")
    by = f"OMP_NUM_THREADS={chosen}" if chosen else "OMP_NUM_THREADS is not set"
    words = f"torch uses {torch.get_num_threads()} of {usable} usable cores; {by}"
    value = {"torch": torch.get_num_threads(), "usable_cores": usable, "omp_num_threads": chosen}
    return Findings((Line("threads", "threads", words, value),))


def cache() -> Findings:
    """The cache: where, how much it holds, how much room there is."""
    folder = cache_folder()
    chosen = f"by {CACHE_VARIABLE}" if os.environ.get(CACHE_VARIABLE) else "by default"
    nearest = _there(folder)
    try:
        with temporary_path(nearest):
            pass
    except VtkError as refusal:
        value = {"folder": str(folder), "writable": False, "bytes": None, "free_bytes": None}
        problem = f"the cache cannot be written: {refusal}; mend it with: export {CACHE_VARIABLE}=DIR"
        return Findings((Line("cache", "cache", f"{folder} ({chosen}), cannot be written", value),), (), (problem,))
    held = _held(folder)
    free = shutil.disk_usage(nearest).free
    value = {"folder": str(folder), "writable": True, "bytes": held, "free_bytes": free}
    line = Line("cache", "cache", f"{folder} ({chosen}), {_bytes(held)}, {_bytes(free)} free", value)
    little = Missing("room for the cache", f"{_bytes(free)} are free", f"export {CACHE_VARIABLE}=DIR on another disk")
    return Findings((line,), (little,) if free < LITTLE else ())


def working_folder() -> Findings:
    """The folder in which runs would be made."""
    try:
        folder = Path.cwd()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        problem = f"the working folder cannot be used ({error.strerror}); mend it with: cd"
        return Findings((Line("working_folder", "working folder", "cannot be used"),), (), (problem,))
    writable = os.access(folder, os.W_OK | os.X_OK)
    words = f"{folder}, {_bytes(free)} free{'' if writable else ', cannot be written: give --out DIR'}"
    value = {"folder": str(folder), "writable": writable, "free_bytes": free}
    little = Missing("room in the working folder", f"{_bytes(free)} are free", "vtk runs clean")
    return Findings((Line("working_folder", "working folder", words, value),), (little,) if free < LITTLE else ())


def _there(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _held(folder: Path) -> int:
    """Bytes of the files in a folder; one that another process removes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
