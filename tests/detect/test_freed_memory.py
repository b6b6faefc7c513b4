"""Memory that is freed and asked for again is not mapped anew."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import resource
import sys
from vtk_cli.detect.freed_memory import keep_freed_memory
import torch
torch.set_num_threads(1)

def step():
    blocks = [torch.ones(1 << 20) for _ in range(8)]
    return sum(float(block[0]) for block in blocks)

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(4):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step(), step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is asked")
def test_a_step_after_the_first_touches_no_new_pages() -> None:
    def new_pages(mode: str) -> int:
        done = subprocess.run([sys.executable, "-c", _SCRIPT, mode], capture_output=True, text=True, check=True)
        return int(done.stdout)

    pages = 2 * 8 * (4 << 20) // 4096  # of two steps
    kept = new_pages("keep")
    assert kept < pages / 4
    assert kept <= new_pages("leave")
