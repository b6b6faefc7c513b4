"""Triton: the tests of this folder under its interpreter, and every kernel through its compiler."""

import os
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", ["filter", "frames", "operator"])
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is that process")
def test_the_tests_pass_under_the_interpreter(in_a_process_of_its_own, name):
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / f"test_{name}.py"))
    assert " passed" in in_a_process_of_its_own(*arguments, TRITON_INTERPRET="1")


COMPILE = """
import importlib, triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

kernels = importlib.import_module("vtk_kernels.frequency.triton")
ALIGNED = ("width", "batch_stride", "channel_stride", "frame_stride", "row_stride")

def ptx(name, clip, out, **constants):
    kernel = getattr(kernels, name)
    total = "*fp64" if clip == "fp64" else "*fp32"
    tables = dict.fromkeys(("scales", "shifts", "rows", "temporal", "columns", "modes", "sums"), total)
    pointers = {**tables, "clip": f"*{clip}", "out": f"*{out}", "apply": "*u8"}
    constants["COMPUTE"] = tl.float64 if clip == "fp64" else tl.float32
    constants["column_stride"] = 3 if clip == "u8" else 1
    types, aligned = {}, {}
    for index, argument in enumerate(kernel.arg_names):
        types[argument] = "constexpr" if argument in constants else pointers.get(argument, "i32")
        if argument in pointers or argument in ALIGNED:
            aligned[index,] = [["tt.divisibility", 16]]
    made = triton.compile(ASTSource(kernel, types, constants, aligned), target=GPUTarget("cuda", 90, 32))
    return made.asm["ptx"]

def tiles(clip, out, time, space, frames, block):
    return ptx("_filter_tiles", clip, out, APPLY=True, NORMALIZE=clip == "u8", TIME=time, KEEPS_PIXELS=True,
               SPACE=space, KEEPS_FRAMES=True, FRAMES=frames, BLOCK=block)

for clip, out in (*((x, x) for x in ("fp32", "fp64", "bf16", "fp16")), ("u8", "fp32"), ("u8", "bf16")):
    made = [
        tiles(clip, out, True, False, 16, 512),
        tiles(clip, out, True, True, 16, 128),
        tiles(clip, out, False, True, 8, 128),
    ]
    made.append(ptx("_project", clip, out, NORMALIZE=clip == "u8", ROWS=32, COLUMNS=128))
    for each in made:  # no atomics: results repeat; reads and writes of 16 bytes
        assert "atom." not in each and "red.global" not in each
        assert clip == "u8" or "ld.global.v" in each
    assert all("st.global.v" in each for each in made[:3])
# The frames of a pixel lie in one thread: no shuffle, no shared memory.
for frames, block in ((8, 1024), (16, 512)):
    column = tiles("fp32", "fp32", True, False, frames, block)
    assert "shfl" not in column and "bar.sync" not in column
print("compiled")
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu_with_wide_moves_and_without_atomics(in_a_process_of_its_own, tmp_path):
    shown = in_a_process_of_its_own("-W", "ignore", "-c", COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert shown.endswith("compiled\n")
