"""Triton: the tests of this folder under its interpreter, and every kernel through its compiler."""

import os
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random_keep", "keep_tokens", "patches"])
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is that process")
def test_the_tests_pass_under_the_interpreter(in_a_process_of_its_own, name):
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / f"test_{name}.py"))
    assert " passed" in in_a_process_of_its_own(*arguments, TRITON_INTERPRET="1")


COMPILE = """
import importlib, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

kernels = importlib.import_module("vtk_kernels.masking.triton_kernels")

def ptx(name, pointers, **constants):
    kernel = getattr(kernels, name)
    types, aligned = {}, {}
    for index, argument in enumerate(kernel.arg_names):
        if argument in constants:
            types[argument] = "constexpr"
        else:
            types[argument] = f"*{pointers[argument]}" if argument in pointers else "i32"
            if argument in (*pointers, "channels", "whole_width", "lines"):
                aligned[index,] = [["tt.divisibility", 16]]
    made = triton.compile(ASTSource(kernel, types, constants, aligned), target=GPUTarget("cuda", 90, 32))
    return made.asm["ptx"]

assert "mul.hi.u32" in ptx("random_keep_kernel", {"kept": "i64"}, BLOCK=256)
ptx("write_places_kernel", {"keep": "i64", "places": "i32"}, BLOCK=256)
size = {"HEIGHT": 16, "WIDTH": 16}
for x, total in (("fp32", "fp32"), ("bf16", "fp32"), ("fp16", "fp32"), ("fp64", "fp64")):
    tile = {"ROWS": 8, "TILE": 256, "WIDE": x == "fp64"}
    made = [
        ptx("keep_tokens_kernel", dict(x=x, keep="i64", pos=x, prefix=x, out=x), HAS_POS=True, HAS_PREFIX=True, **tile),
        ptx("keep_tokens_backward_kernel", dict(grad=x, places="i32", grad_x=x, sums=total),
            PART=16, NEED_X=True, NEED_POS=True, **tile),
        ptx("keep_patches_kernel", dict(image=x, keep="i64", patches=x), FLOATING=True, LINES=64, WIDE=16, **size),
        *(ptx("compose_patches_kernel", dict(kept_from=x, other=x, places="i32", image=x),
              FROM_PATCHES=placed, LINES=8, SOME=16, WIDE=16, **size) for placed in (True, False)),
    ]
    # Reads and writes of 16 bytes, and no atomics: results repeat.
    wide = "v2.b64" if x == "fp64" else "v4.b32"
    for each in made:
        assert "ld.global" in each and f"st.global.{wide}" in each, each
        assert "atom." not in each and "red.global" not in each
    ptx("fill_gradient_kernel", dict(grad=x, places="i32", sums=total), PART=16, BLOCK=256, **size)
ptx("keep_patches_kernel", dict(image="u8", keep="i64", patches="u8"), FLOATING=False, LINES=64, WIDE=16, **size)
print("compiled")
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu_with_wide_moves_and_without_atomics(in_a_process_of_its_own, tmp_path):
    shown = in_a_process_of_its_own("-W", "ignore", "-c", COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert shown.endswith("compiled\n")
