"""The backend that a test of an operator runs on, and processes for what must not share one.

Every test that takes `backend` runs on every backend that works on this machine. With Triton's interpreter on
(TRITON_INTERPRET=1, read when triton is imported) that is Triton alone, so it needs a process of its own: the
`test_<operator>_on_triton.py` of each folder starts it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vtk_kernels.dispatch import OPERATORS, VARIABLE, which


@pytest.fixture(params=["triton"] if os.environ.get("TRITON_INTERPRET") == "1" else ["reference", "cpu"])
def backend(request, monkeypatch):
    monkeypatch.setenv(VARIABLE, request.param)
    try:
        for function in OPERATORS:
            which(function, "cpu")
    except ValueError as obstacle:
        pytest.skip(str(obstacle))
    return request.param


@pytest.fixture
def in_a_process_of_its_own():
    return _run_python


def _run_python(*arguments, **environment):
    """What `python *arguments` prints, on one thread, from the root of the repository."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
