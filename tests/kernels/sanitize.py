"""The compiled kernels under a sanitizer: `python tests/kernels/sanitize.py address|thread`.

Builds `vtk_kernels._cpu` with AddressSanitizer or ThreadSanitizer into a temporary folder and runs the tests of every
operator on it, with four threads (but not after fork, which ThreadSanitizer does not support). ThreadSanitizer does not
know libgomp's barriers, so there the kernels use std::thread (`native/parallel.h`). First a provoked fault shows that
the sanitizer sees one. Takes a few minutes; not part of pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("masking", "frequency", "deformable")
LIBRARIES = {"address": "libasan.so", "thread": "libtsan.so"}

RUN = """
import sys, pytest, torch
torch.set_num_threads(1)  # torch's own threads are not the question
from vtk_kernels import dispatch
dispatch.threads = lambda: 4
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "cpu and not compile and not fork", *sys.argv[1:]]))
"""

FAULTS = {
    "address": """
import ctypes
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
c.memset(ctypes.c_void_p(c.malloc(16)), 0, 64)  # 48 bytes too many
""",
    "thread": """
import threading, torch
from vtk_kernels import dispatch
value, places, weights = torch.zeros(1, 4096, 1, 32), torch.rand(1, 4000, 1, 1, 4, 2), torch.rand(1, 4000, 1, 1, 4)
out = torch.zeros(1, 4000, 32)
run = lambda: dispatch.cpu_module("deformable").sample_forward(value, [(64, 64)], places, weights, out, 4)
both = [threading.Thread(target=run) for _ in range(2)]  # two writers of one result
[one.start() for one in both], [one.join() for one in both]
""",
}


def build(kind: str, folder: Path) -> None:
    """A package folder that is the checkout's, with a sanitized extension."""
    flags = f"-O1 -g -fno-omit-frame-pointer -fsanitize={kind}"
    settings = [f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_CXX_FLAGS={flags}"]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder / "build", *settings], check=True)
    subprocess.run(["cmake", "--build", folder / "build", "--parallel", "2"], check=True)
    package = folder / "site" / "vtk_kernels"
    package.mkdir(parents=True)
    for item in (ROOT / "kernels" / "vtk_kernels").iterdir():
        (package / item.name).symlink_to(item)
    for built in (folder / "build").glob("_cpu*.so"):
        (package / built.name).unlink(missing_ok=True)
        built.rename(package / built.name)


def library(name: str) -> str:
    """Where the compiler keeps a library that must be loaded before Python."""
    found = subprocess.run(["c++", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def main(kind: str) -> int:
    """Builds, provokes, tests; the exit code of the tests."""
    with tempfile.TemporaryDirectory() as temporary:
        build(kind, Path(temporary))
        environment = {
            **os.environ,
            "LD_PRELOAD": f"{library(LIBRARIES[kind])} {library('libstdc++.so')}",
            "ASAN_OPTIONS": "detect_leaks=0",
            "TSAN_OPTIONS": "exitcode=66",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{Path(temporary) / 'site'}:{ROOT}",
        }
        fault = subprocess.run([sys.executable, "-c", FAULTS[kind]], env=environment, check=False, capture_output=True)
        if not fault.returncode or b"Sanitizer" not in fault.stderr:
            sys.exit(f"the sanitizer did not see the provoked fault: {fault.stderr.decode()[-2000:]}")
        folders = [ROOT / "tests" / "kernels" / folder for folder in FOLDERS]
        return subprocess.run([sys.executable, "-c", RUN, *folders], env=environment, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
