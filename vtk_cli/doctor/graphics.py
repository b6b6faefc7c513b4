"""Torch and the GPUs: what torch was built for, what the driver is, and whether they go together."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import torch

from vtk_cli.doctor.findings import Findings, Line

DRIVER = Path("/proc/driver/nvidia/version")
_NUMBER = re.compile(r"\b\d{3,}\.\d+(?:\.\d+)?\b")
_TIMEOUT_S = 10


def graphics() -> Findings:
    """Torch, CUDA, the driver and the GPUs."""
    driver = driver_version()
    with warnings.catch_warnings(record=True) as warned:  # torch tells here why it cannot use a GPU
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    cuda = torch.version.cuda
    lines = (
        Line("torch", "torch", f"{torch.__version__}, {f'built for CUDA {cuda}' if cuda else 'built without CUDA'}"),
        Line("cuda", "CUDA", cuda or "none: this torch was built without it"),
        Line("driver", "NVIDIA driver", driver or "none"),
        Line("gpus", "GPUs", _names(usable=usable), _gpus() if usable else []),
    )
    if driver is None or usable or os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return Findings(lines)  # hidden GPUs are none
    if cuda is None:
        why, mend = "this torch was built without CUDA", "pip install --force-reinstall torch torchvision"
    else:
        why = " ".join(str(warned[-1].message).split()) if warned else "it does not say why"
        mend = f"update the driver to one for CUDA {cuda}, e.g. ubuntu-drivers install"
    return Findings(lines, (), (f"NVIDIA driver {driver} is here but torch can use no GPU: {why}; mend it: {mend}",))


def driver_version() -> str | None:
    """Of NVIDIA's driver; None without one."""
    if DRIVER.exists():
        found = _NUMBER.search(DRIVER.read_text(encoding="utf-8", errors="replace"))
        return found[0] if found else "of unknown version"
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _NUMBER.search(done.stdout)
    return found[0] if found and not done.returncode else None


def _gpus() -> list[dict[str, object]]:
    known = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {"name": one.name, "memory_bytes": one.total_memory, "capability": f"{one.major}.{one.minor}"} for one in known
    ]


def _names(*, usable: bool) -> str:
    if usable:
        known = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GiB)" for one in known)
    return "none that torch can use" if torch.version.cuda else "none: this torch was built without CUDA"
