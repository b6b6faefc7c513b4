"""Which backend runs an operator: one rule for all of them.

A CUDA tensor goes to Triton (or to CUDA C++ where that was measured to be faster), a CPU tensor to the compiled C++
kernel if it was built, and everything else to the torch reference. The environment variable `VTK_KERNELS` forces one.

An operator is a folder; its public functions are listed in `OPERATORS`. An operator's `ops.py` asks
`which(function, tensor.device)` inside its `torch.library` kernel (never in code that `torch.compile` traces) and calls
`cpu_module(folder)` for the compiled functions, whose source is `<folder>/cpu.cpp` (see `CMakeLists.txt`).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from types import ModuleType
from typing import Literal, get_args

import torch

Backend = Literal["reference", "cpu", "triton", "cuda"]
VARIABLE = "VTK_KERNELS"

OPERATORS: dict[str, tuple[str, tuple[Backend, ...]]] = {
    "random_keep": ("masking", ("reference", "cpu", "triton")),
    "keep_tokens": ("masking", ("reference", "cpu", "triton")),
    "keep_patches": ("masking", ("reference", "cpu", "triton")),
    "mask_patches": ("masking", ("reference", "cpu", "triton")),
    "frequency_filter": ("frequency", ("reference", "cpu", "triton")),
    "frequency_filter_frames": ("frequency", ("reference", "cpu", "triton")),
    "deformable_attention": ("deformable", ("reference", "cpu", "triton", "cuda")),
    "sample_levels": ("deformable", ("reference", "cpu", "triton", "cuda")),
}
"""Public function -> its folder and the backends it has."""


def which(function: str, device: torch.device | str) -> Backend:
    """The backend that `function` uses for tensors on `device`.

    Args:
        function: a public operator, a key of `OPERATORS`.
        device: where the tensors are, e.g. "cpu" or "cuda:0".

    Raises:
        ValueError: `function` is not an operator, or `VTK_KERNELS` names no backend or one that cannot run there.
    """
    return _choice(function, torch.device(device))[0]


def why(function: str, device: torch.device | str) -> str:
    """The reason for `which(function, device)`, in a sentence for a person. Raises as `which` does."""
    return _choice(function, torch.device(device))[1]


def cpu_module(folder: str) -> ModuleType:
    """The compiled functions of an operator, by its folder's name. Only after `which` said "cpu"."""
    return _compiled()[folder]


def threads() -> int:
    """How many threads a CPU kernel may use: torch's number, which is 1 in a DataLoader worker."""
    return torch.get_num_threads()


def _choice(function: str, device: torch.device) -> tuple[Backend, str]:
    if function not in OPERATORS:
        raise ValueError(f"function: expected one of {', '.join(OPERATORS)}, got {function!r}")
    forced = os.environ.get(VARIABLE, "")
    if forced:
        return _forced(forced, function, device), f"{VARIABLE}={forced} asks for it"
    if device.type == "cpu":
        missing = _obstacle("cpu", function, device)
        return ("reference", missing) if missing else ("cpu", "compiled C++ for CPU tensors")
    if device.type == "cuda":
        missing = _obstacle("triton", function, device)
        return ("reference", missing) if missing else ("triton", "Triton for CUDA tensors")
    return "reference", f"no kernel is written for {device.type}"


def _forced(forced: str, function: str, device: torch.device) -> Backend:
    for backend in get_args(Backend):
        if backend == forced:
            obstacle = _obstacle(backend, function, device)
            if obstacle:
                raise ValueError(f"{VARIABLE}={forced}: {function} cannot run so on {device}: {obstacle}")
            return backend  # type: ignore[no-any-return]
    raise ValueError(f"{VARIABLE}: expected one of {', '.join(get_args(Backend))}, got {forced!r}")


def _obstacle(backend: Backend, function: str, device: torch.device) -> str:
    """Why `backend` cannot run `function` on `device`; empty when it can."""
    folder, backends = OPERATORS[function]
    if backend not in backends:
        return f"it has only {', '.join(backends)}"
    if backend == "cpu":
        if device.type != "cpu":
            return "the C++ kernels take CPU tensors"
        return "" if folder in _compiled() else "the compiled kernels were not built at install (no C++ compiler)"
    if backend == "triton":
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed"
        if device.type != "cuda" and not interpreted():
            return "Triton takes CUDA tensors; on a CPU only its interpreter runs (TRITON_INTERPRET=1)"
    if backend == "cuda":
        if device.type != "cuda":
            return "CUDA C++ takes CUDA tensors"
        if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
            return "cuda.core is not installed (pip install 'vtk-cli[cuda]')"
    return ""


def interpreted() -> bool:
    """Whether Triton's interpreter is on, which runs kernels on CPU tensors, slowly: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _compiled() -> dict[str, ModuleType]:
    """Operator folder -> its compiled submodule; empty when the extension was not built."""
    if importlib.util.find_spec("vtk_kernels._cpu") is None:
        return {}
    module = importlib.import_module("vtk_kernels._cpu")
    folders = {folder for folder, _ in OPERATORS.values()}
    return {folder: getattr(module, folder) for folder in folders if hasattr(module, folder)}
