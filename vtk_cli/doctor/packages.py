"""Python packages: those that are always there, the readers of videos, and the extras."""

from __future__ import annotations

import importlib
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from vtk_cli.doctor.findings import Findings, Line, Missing

_PACKAGES = ("torchvision", "timm", "triton", "cuda-core", "pycocotools", "scikit-learn")
_READERS = {"decord": "decord", "av": "PyAV"}
"""Distribution, which is also what is imported, -> its name."""
_EXPORT = ("onnx", "onnxruntime", "onnxscript")


def packages(*, has_gpu: bool) -> Findings:
    """What of the packages that vtk uses is installed.

    Args:
        has_gpu: whether torch can use one.
    """
    versions = {name: installed(name) for name in (*_PACKAGES, *_EXPORT)}
    missing = []
    absent = [name for name in _EXPORT if versions[name] is None]
    if absent:
        missing.append(Missing(", ".join(absent), "no export to ONNX", "pip install 'vtk-cli[export]'"))
    if has_gpu and versions["cuda-core"] is None:
        what = "deformable attention runs by Triton alone"
        missing.append(Missing("cuda-core", what, "pip install 'vtk-cli[cuda]'"))
    if has_gpu and versions["triton"] is None:
        missing.append(Missing("triton", "the fused operators run as plain torch on a GPU", "pip install triton"))
    words = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    return Findings((Line("packages", "packages", words, versions),), missing)


def video_readers() -> Findings:
    """What reads videos: decord first, where it has wheels, and PyAV."""
    states = {name: _state(name) for name in _READERS}
    lines = [
        Line(name, _READERS[name], f"{found} {broken and 'cannot be loaded'}".strip() if found else "is not installed")
        for name, (found, broken) in states.items()
    ]
    problems = [
        f"{_READERS[name]} cannot be loaded ({broken}); mend it with: pip install --force-reinstall {name}"
        for name, (found, broken) in states.items()
        if found and broken
    ]
    missing = []
    if states["av"][0] is None:
        missing.append(Missing("PyAV", "videos cannot be written, and fewer can be read", "pip install av"))
    if states["decord"][0] is None and _decord_has_wheels():
        missing.append(Missing("decord", "videos are read by PyAV, slower", "pip install decord"))
    return Findings(lines, missing, problems)


def installed(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _state(package: str) -> tuple[str | None, str]:
    """Its version, None where it is not installed, and why it cannot be imported, empty where it can."""
    found = installed(package)
    if found is None:
        return None, ""
    try:
        importlib.import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # what a shared library that does not fit ends in
        return found, " ".join(str(error).split())
    return found, ""


def _decord_has_wheels() -> bool:
    return sys.platform == "win32" or (sys.platform == "linux" and platform.machine() == "x86_64")
