"""Looks at this installation: nothing is changed, and nothing that is wrong ends the look."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vtk_cli import __version__
from vtk_cli.errors import VtkError
from vtk_cli.files import CACHE_VARIABLE, cache_folder, temporary_path
from vtk_kernels import dispatch

_PACKAGES = ("torchvision", "timm", "triton", "cuda-core", "decord", "av", "pycocotools", "scikit-learn")
_COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Line:
    """A fact: `key` for programs, `what` and `found` for people."""

    key: str
    what: str
    found: str


@dataclass(frozen=True)
class KernelChoice:
    """The backend that an operator uses for tensors on `device`, None where none can run, and why."""

    operator: str
    device: str
    backend: str | None
    why: str


@dataclass(frozen=True)
class Examination:
    """What was found; `problems` are what cannot work, a sentence each."""

    lines: Sequence[Line]
    kernels: Sequence[KernelChoice]
    problems: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            **{line.key: line.found for line in self.lines},
            "kernels": [asdict(choice) for choice in self.kernels],
            "problems": list(self.problems),
        }


def examine() -> Examination:
    """Look at everything."""
    compiled, broken = _compiled()
    kernels = [] if broken else list(_kernels())
    cache, unwritable = _cache()
    lines = [
        Line("vtk", "vtk", f"{__version__} in {Path(__file__).parents[1]}"),
        Line("python", "Python", f"{platform.python_version()} at {sys.executable}"),
        Line("system", "system", platform.platform()),
        Line("processor", "processor", _processor()),
        Line("torch", "torch", f"{torch.__version__}, {_cuda_of_torch()}"),
        Line("gpus", "GPUs", _gpus()),
        Line("compiled", "compiled kernels", compiled),
        Line("compiler", "C++ compiler", _compiler()),
        Line("threads", "threads", _threads()),
        Line("cache", "cache", cache),
        Line("packages", "packages", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)),
    ]
    refused = dict.fromkeys(choice.why for choice in kernels if choice.backend is None)
    return Examination(lines, kernels, [*broken, *refused, *unwritable])


def _kernels() -> Iterator[KernelChoice]:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for operator in dispatch.OPERATORS:
        for device in devices:
            try:
                backend = dispatch.which(operator, device)
                yield KernelChoice(operator, device, backend, dispatch.why(operator, device))
            except ValueError as refusal:
                yield KernelChoice(operator, device, None, str(refusal))


def _compiled() -> tuple[str, list[str]]:
    """What the extension module says of itself; and what is wrong with it."""
    if find_spec("vtk_kernels._cpu") is None:
        return "not built: no C++ compiler was found at install; the torch references run in their place", []
    try:
        module = importlib.import_module("vtk_kernels._cpu")
    except ImportError as error:
        return "cannot be loaded", [f"the compiled kernels cannot be loaded: {error}; install vtk-cli again"]
    return f"built by {module.compiler}, using {module.instruction_set()}", []


def _compiler() -> str:
    there = [shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS) if name]
    return next((path for path in there if path), "none on PATH")


def _threads() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    chosen = os.environ.get("OMP_NUM_THREADS")
    by = f"OMP_NUM_THREADS={chosen}" if chosen else "OMP_NUM_THREADS is not set"
    return f"torch uses {torch.get_num_threads()} of {usable} usable cores; {by}"


def _cache() -> tuple[str, list[str]]:
    """The cache folder in words; and what is wrong with it."""
    folder = cache_folder()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    chosen = f"by {CACHE_VARIABLE}" if os.environ.get(CACHE_VARIABLE) else "by default"
    try:
        with temporary_path(nearest):
            pass
    except VtkError as refusal:
        return f"{folder} ({chosen}), cannot be written", [f"the cache cannot be written: {refusal}"]
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    free = shutil.disk_usage(nearest).free
    return f"{folder} ({chosen}), {held / 1e6:.0f} MB, {free / 1e9:.1f} GB free", []


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {os.cpu_count()} cores"


def _cuda_of_torch() -> str:
    return f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"


def _gpus() -> str:
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return "none that torch can use" if torch.version.cuda else "none: this torch was built without CUDA"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "is not installed"
