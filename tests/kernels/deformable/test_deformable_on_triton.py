"""Triton: the tests of this folder under its interpreter, and every form of its kernels through its compiler."""

import os
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is that process")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sampling", "operator"])
def test_the_tests_pass_under_the_interpreter(in_a_process_of_its_own, name):
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / f"test_{name}.py"))
    assert " passed" in in_a_process_of_its_own(*arguments, TRITON_INTERPRET="1")


COMPILE = """
import importlib, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

kernels = importlib.import_module("vtk_kernels.deformable.triton")

def ptx(kernel, pointers, **constants):
    types, aligned = {}, {}
    for index, argument in enumerate(kernel.arg_names):
        if argument in constants:
            types[argument] = "constexpr"
        elif argument in pointers:
            types[argument] = f"*{pointers[argument]}"
            aligned[index,] = [["tt.divisibility", 16]]
        else:
            types[argument] = ("i32",) * (2 * constants["L"]) if argument == "sides" else "i32"
    made = triton.compile(ASTSource(kernel, types, constants, aligned), target=GPUTarget("cuda", 90, 32))
    return made.asm["ptx"]

exact = sys.argv[1] == "exact"
for element, total, coordinates in (("fp32", "fp32", 0), ("bf16", "fp32", 4), ("fp64", "fp64", 2)):
    size = dict(M=8, D=32, L=4, P=4, COORDINATES=coordinates, ROWS=16, LANES=32, POINTS=16)
    queries = dict(places=total, scores=total, reference=total)
    if not exact:
        made = ptx(kernels.forward_kernel, dict(value=element, out=element, **queries), **size)
        assert "ld.global.v4.b32" in made or element != "fp32"  # 16 bytes a thread
    grads = dict(grad_value="i64" if exact else total, grad_places=total, grad_scores=total, by_head=total)
    pointers = dict(grad=element, value=element, scale_place="fp64" if exact else total, **queries, **grads)
    made = ptx(kernels.backward_kernel, pointers, EXACT=exact, **size)
    assert ("add.u64" if exact else "add.v4.f32" if total == "fp32" else "add.f64") in made
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", ["any", "exact"])
def test_the_kernels_compile_for_a_gpu(in_a_process_of_its_own, order):
    in_a_process_of_its_own("-c", COMPILE, order, TRITON_INTERPRET="0")
