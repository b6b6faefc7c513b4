"""Deformable attention in CUDA C++: compiles `cuda.cu` with NVRTC when it is first used, and launches it.

Needs `cuda.core` (the extra `cuda`). One binary for each device, element type, number of channels and form of queries.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtk_kernels.deformable import fixed_point
from vtk_kernels.deformable.operators import operators

Shapes = list[tuple[int, int]]
CHANNELS = (8, 16, 32, 64, 128)
THREADS = 128
_MOST_LEVELS = 8
_SHARED_MEMORY = 48 * 1024
_TYPES = {torch.float64: "double", torch.float32: "float", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def macros(dtype: torch.dtype, channels: int, coordinates: int, exact: bool) -> dict[str, str]:
    """What `cuda.cu` is compiled with; its first lines say what each is."""
    total = "double" if dtype == torch.float64 else "float"
    choices = {"ELEMENT": _TYPES[dtype], "SUM": total, "CHANNELS": channels, "COORDINATES": coordinates}
    return {name: str(choice) for name, choice in choices.items()} | {"EXACT": str(int(exact))}


def _forward(value: Tensor, shapes: Shapes, reference: Tensor | None, places: Tensor, scores: Tensor) -> Tensor:
    out = value.new_empty(value.shape[0], places.shape[1], value.shape[2] * value.shape[3])
    _run("forward_kernel", value, shapes, reference, places, None, value, places, scores, reference, out)
    return out


def _backward(
    grad: Tensor,
    value: Tensor,
    shapes: Shapes,
    reference: Tensor | None,
    places: Tensor,
    scores: Tensor,
    bound: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scale = None if bound is None else fixed_point.scale(bound)
    grad_value = value.new_zeros(value.shape, dtype=places.dtype if bound is None else torch.int64)
    grad_places, grad_scores = torch.empty_like(places), torch.empty_like(scores)
    by_head = places.new_empty(*places.shape[:4], _coordinates(reference))
    tensors = grad, value, places, scores, reference, grad_value, grad_places, grad_scores, by_head, scale
    _run("backward_kernel", value, shapes, reference, places, bound, *tensors)
    if bound is not None:
        grad_value = fixed_point.to_float(grad_value, bound, places.dtype)
    return grad_value, by_head, grad_places, grad_scores


def _coordinates(reference: Tensor | None) -> int:
    return 0 if reference is None else reference.shape[-1]


def _run(
    name: str,
    value: Tensor,
    shapes: Shapes,
    reference: Tensor | None,
    places: Tensor,
    bound: Tensor | None,
    *tensors: Tensor | None,
) -> None:
    """Launches one kernel over all rows (b, q, m), on torch's current stream. A missing tensor is a null pointer."""
    from cuda.core import Device, LaunchConfig, Stream, launch

    _, S, M, D = value.shape
    B, Q, _, L, P, _ = places.shape
    rows = B * Q * M
    if not rows:
        return
    if D not in CHANNELS:
        raise ValueError(f"value: CUDA C++ takes D of {CHANNELS}, got {D}; Triton (VTK_KERNELS=triton) takes any")
    plan = 5 * 8 if value.dtype == torch.float64 else 5 * 4  # at least the bytes of one planned sample
    fitting = _SHARED_MEMORY // (plan * L * P)
    if not fitting:
        raise ValueError(f"offsets: CUDA C++ plans L * P samples in shared memory, {L * P} do not fit")
    lanes = min(D, 32)
    group = min(THREADS // lanes, fitting)
    sides = [np.int64(H << 32 | W) for H, W in shapes] + [np.int64(0)] * (_MOST_LEVELS - L)
    sizes = np.int64(rows), np.int32(S), np.int32(Q), np.int32(M), np.int32(L), np.int32(P)
    pointers = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    with torch.cuda.device(value.device):
        Device(value.device.index).set_current()
        kernel = _kernel(name, value.device.index, value.dtype, D, _coordinates(reference), bound is not None)
        config = LaunchConfig(grid=-(-rows // group), block=group * lanes, shmem_size=group * L * P * plan)
        stream = Stream.from_handle(torch.cuda.current_stream().cuda_stream)
        launch(stream, config, kernel, *pointers, *sides, *sizes)


@cache
def _kernel(name: str, device: int, dtype: torch.dtype, channels: int, coordinates: int, exact: bool) -> Any:
    from cuda.core import Program, ProgramOptions

    major, minor = torch.cuda.get_device_capability(device)
    chosen = macros(dtype, channels, coordinates, exact)
    options = ProgramOptions(arch=f"sm_{major}{minor}", std="c++17", define_macro=list(chosen.items()))
    source = (Path(__file__).parent / "cuda.cu").read_text(encoding="utf-8")
    return Program(source, "c++", options).compile("cubin").get_kernel(name)


# Raises: ValueError: D is not one of `CHANNELS`, or L * P is too large for shared memory.
sample_levels, sample_levels_backward, deformable_attention, deformable_attention_backward = operators(
    _forward, _backward
)
