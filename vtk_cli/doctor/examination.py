"""Looks at this installation: nothing is changed, and nothing that is wrong ends the look."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from vtk_cli import __version__
from vtk_cli.doctor.findings import Examination, Findings, KernelChoice, Line
from vtk_cli.doctor.graphics import graphics
from vtk_cli.doctor.packages import packages, video_readers
from vtk_cli.doctor.programs import compilers, slurm
from vtk_cli.doctor.room import cache, threads, working_folder
from vtk_kernels import dispatch

_NOT_BUILT = "not built: no C++ compiler was found at install; the torch references run in their place"


def examine() -> Examination:
    """Look at everything."""
    built = find_spec("vtk_kernels._cpu") is not None
    compiled = _compiled() if built else Findings((Line("compiled", "compiled kernels", _NOT_BUILT),))
    kernels = [] if compiled.problems else list(_kernels())
    parts = (
        _machine(),
        graphics(),
        compiled,
        compilers(kernels_built=built),
        video_readers(),
        packages(has_gpu=torch.cuda.is_available()),
        slurm(),
        threads(),
        cache(),
        working_folder(),
    )
    refused = dict.fromkeys(choice.why for choice in kernels if choice.backend is None)
    return Examination(
        lines=[line for part in parts for line in part.lines],
        missing=[each for part in parts for each in part.missing],
        problems=[*refused, *(problem for part in parts for problem in part.problems)],
        kernels=kernels,
    )


def _machine() -> Findings:
    return Findings(
        (
            Line("vtk", "vtk", f"{__version__} in {Path(__file__).parents[1]}"),
            Line("python", "Python", f"{platform.python_version()} at {sys.executable}"),
            Line("system", "system", platform.platform()),
            Line("processor", "processor", _processor()),
        )
    )


def _kernels() -> Iterator[KernelChoice]:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for operator in dispatch.OPERATORS:
        for device in devices:
            try:
                backend = dispatch.which(operator, device)
                yield KernelChoice(operator, device, backend, dispatch.why(operator, device))
            except ValueError as refusal:
                yield KernelChoice(operator, device, None, str(refusal))


def _compiled() -> Findings:
    """What the extension module says of itself."""
    try:
        module = importlib.import_module("vtk_kernels._cpu")
    except ImportError as error:
        again = "pip install --force-reinstall --no-deps --no-cache-dir vtk-cli"
        problem = f"the compiled kernels cannot be loaded: {error}; mend it with: {again}"
        return Findings((Line("compiled", "compiled kernels", "cannot be loaded"),), (), (problem,))
    return Findings(
        (Line("compiled", "compiled kernels", f"built by {module.compiler}, using {module.instruction_set()}"),)
    )


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {os.cpu_count()} cores"
