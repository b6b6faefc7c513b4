"""CUDA C++: it compiles for every type and form, by nvcc or NVRTC; and it computes the same, on emulated threads."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import vtk_kernels
from vtk_kernels.deformable import cuda, fixed_point, reference

SOURCE = Path(vtk_kernels.__file__).parent / "deformable" / "cuda.cu"
FORMS = [
    (torch.float32, 32, 2, False),
    (torch.float32, 8, 0, True),
    (torch.float64, 16, 4, False),
    (torch.bfloat16, 128, 4, True),
    (torch.float16, 64, 0, False),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_it_compiles_without_spilling_registers(form, tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("there is no nvcc")
    defines = [f"-D{name}={choice}" for name, choice in cuda.macros(*form).items()]
    command = ["nvcc", "-cubin", "-arch=sm_80", "-std=c++17", "-Xptxas", "-v", "-o", tmp_path / "out.cubin", *defines]
    done = subprocess.run([*command, SOURCE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("0 bytes spill stores, 0 bytes spill loads") == 2, done.stderr


@pytest.mark.parametrize("form", FORMS[:2], ids=str)
def test_nvrtc_compiles_it_without_any_header(form):
    core = pytest.importorskip("cuda.core")
    options = core.ProgramOptions(arch="sm_90", std="c++17", define_macro=list(cuda.macros(*form).items()))
    try:
        binary = core.Program(SOURCE.read_text(), "c++", options).compile("cubin")
    except RuntimeError as missing:  # the library that cuda.core loads
        pytest.skip(str(missing))
    assert len(binary.code) > 1000


@pytest.fixture
def emulated(tmp_path):
    """The kernels of one form, compiled as C++ (without the two instructions of float16) to run on the CPU."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")

    def build(*form):
        source = re.sub(r"asm\(.*\n", "{}\n", SOURCE.read_text())
        source = source.replace("extern __shared__ __align__(16)", "extern").replace(
            "__shared__ Levels", "static Levels"
        )
        entries = "".join(
            f'extern "C" void run_{name}(int grid, int block, {pointers}, SHAPES, long long rows, int S, int Q, int M, '
            f"int L, int P) {{ launch(grid, block, LANES, {name}_kernel, {names}, s0, s1, s2, s3, s4, s5, s6, s7, "
            "rows, S, Q, M, L, P); }\n"
            for name, pointers, names in (
                (
                    "forward",
                    "ELEMENT *value, SUM *places, SUM *scores, SUM *reference, ELEMENT *out",
                    "value, places, scores, reference, out",
                ),
                (
                    "backward",
                    "ELEMENT *grad, ELEMENT *value, SUM *places, SUM *scores, SUM *reference, Total *grad_value, "
                    "SUM *grad_places, SUM *grad_scores, SUM *by_head, double *scale",
                    "grad, value, places, scores, reference, grad_value, grad_places, grad_scores, by_head, scale",
                ),
            )
        )
        header = f'#include "{Path(__file__).with_name("emulation.h")}"\n'
        (tmp_path / "cuda.cpp").write_text(header + source + entries)
        defines = [f"-D{name}={choice}" for name, choice in cuda.macros(*form).items()]
        command = ["g++", "-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-pthread", *defines]
        subprocess.run([*command, "-o", tmp_path / "cuda.so", tmp_path / "cuda.cpp"], check=True)
        return ctypes.CDLL(str(tmp_path / "cuda.so"))

    return build


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "D", "coordinates", "exact"),
    [
        (torch.float32, 8, 2, False),
        (torch.float32, 64, 4, True),
        (torch.float64, 32, 4, False),
        (torch.float64, 16, 0, True),
        (torch.bfloat16, 32, 2, False),
    ],
)
def test_on_emulated_threads_it_computes_what_the_definition_says(emulated, case, dtype, D, coordinates, exact):
    library = emulated(dtype, D, coordinates, exact)
    shapes, (B, Q, M, P) = [(6, 4), (3, 2), (1, 5)], (2, 3, 2, 2)
    value, points, places, scores = case(shapes, B=B, Q=Q, M=M, D=D, P=P, coordinates=coordinates or 2, dtype=dtype)
    L, S, rows = len(shapes), value.shape[1], B * Q * M
    places[0, 0, 0, 0, 0, 0], places[1, 2, 1, 2, 1, 1] = torch.nan, torch.inf
    points = points if coordinates else None
    scores = scores if coordinates else scores.view(B, Q, M, L, P)
    grad = torch.randn(B, Q, M * D, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)

    def run(name, *tensors):
        group = 5  # rows a block, so that the last block is not full
        pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
        sides = [ctypes.c_longlong(H << 32 | W) for H, W in [*shapes, *[(0, 0)] * (8 - L)]]
        sizes = (ctypes.c_longlong(rows), *map(ctypes.c_int, (S, Q, M, L, P)))
        library[f"run_{name}"](-(-rows // group), group * min(D, 32), *pointers, *sides, *sizes)

    out = torch.full((B, Q, M * D), 9.0, dtype=dtype)
    run("forward", value, places, scores, points, out)
    grad_value = torch.zeros(value.shape, dtype=torch.int64 if exact else places.dtype)
    grads = [torch.empty_like(places), torch.empty_like(scores), places.new_empty(B, Q, M, L, coordinates)]
    bound = fixed_point.bound_of_attention(grad) if coordinates else fixed_point.bound_of_samples(grad, places, scores)
    run(
        "backward", grad, value, places, scores, points, grad_value, *grads, fixed_point.scale(bound) if exact else None
    )
    grad_value = fixed_point.to_float(grad_value, bound, places.dtype) if exact else grad_value

    if coordinates:
        expected = reference.deformable_attention(value, shapes, points, places, scores)
        changes = reference.deformable_attention_backward(grad, value, shapes, points, places, scores, False)
        ours = grad_value, grads[2].sum(2), grads[0], grads[1]
    else:
        expected = reference.sample_levels(value, shapes, places, scores)
        changes = reference.sample_levels_backward(grad, value, shapes, places, scores, False)
        ours = grad_value, grads[0], grads[1]
    torch.testing.assert_close(out, expected)
    for one, other in zip(ours, changes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5 if dtype != torch.float64 else 1e-10, atol=1e-5)
