"""Where the arithmetic happens and in which precision.

On the CPU results repeat bit for bit for the same number of threads (`OMP_NUM_THREADS`); another number may sum in
another order.
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch

from vtk_cli.errors import UserError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def resolve_device(name: str) -> torch.device:
    """The device called `name`: `auto` (CUDA, else Apple's MPS, else the CPU), `cpu`, `cuda`, `cuda:1` or `mps`.

    A CUDA device named by its number becomes the current one: kernels that are launched on the current device, and
    the generator that `seeds.rng_state` saves, are then its own.

    Raises:
        UserError: no such device, or this machine has none.
    """
    cuda_count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    present = [f"cuda:{index}" for index in range(cuda_count)] + ["mps"] * has_mps + ["cpu"]
    if name == "auto":
        return torch.device("cuda" if cuda_count else present[0])
    if name in present or (name == "cuda" and cuda_count):
        if name.startswith("cuda:"):
            torch.cuda.set_device(name)
        return torch.device(name)
    kind, _, index = name.partition(":")
    known = kind == "cuda" if index.isdecimal() else (kind in {"cpu", "cuda", "mps"} and name == kind)
    what = f"this machine has no device {name!r}" if known else f"{name!r} is no device"
    raise UserError(what, "--device", f"there is auto, {', '.join(present)}")


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """`auto` becomes bf16 (or fp16, before Ampere) on CUDA and fp32 elsewhere; the others stay.

    Raises:
        UserError: fp16 on the CPU, which has neither the range of bf16 nor the speed of fp32.
    """
    if precision not in {"auto", "fp32", "bf16", "fp16"}:
        raise UserError(f"{precision!r} is no precision", "--precision", "choose auto, fp32, bf16 or fp16")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("fp16 does not train on the CPU", "--precision", "choose fp32 or bf16")
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a forward pass runs at `precision`; a new one for every pass. fp32 changes nothing."""
    resolved = resolve_precision(precision, device)
    if resolved == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if resolved == "bf16" else torch.float16)


def grad_scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler | None:
    """The loss scaler that fp16's small range needs; None for fp32 and bf16."""
    return torch.amp.GradScaler(device.type) if resolve_precision(precision, device) == "fp16" else None


def describe_device(device: torch.device) -> str:
    """What a measurement was made on: the card's name, or the processor's and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"
