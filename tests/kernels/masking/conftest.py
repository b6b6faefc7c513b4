"""Every test here runs on every backend that works on this machine.

With Triton's interpreter on (TRITON_INTERPRET=1, read when triton is imported) that is Triton alone, so it needs a
process of its own: `test_masking_on_triton.py` starts it.
"""

import os

import pytest
import torch

from vtk_kernels.dispatch import VARIABLE, which

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(params=["triton"] if INTERPRETED else ["reference", "cpu"])
def backend(request, monkeypatch):
    monkeypatch.setenv(VARIABLE, request.param)
    try:
        which("keep_tokens", "cpu")
    except ValueError as obstacle:
        pytest.skip(str(obstacle))
    return request.param


@pytest.fixture
def agree():
    """Equal bit for bit; Triton's interpreter alone truncates where bfloat16 is to be rounded."""

    def check(ours, expected):
        assert ours.dtype == expected.dtype
        assert ours.shape == expected.shape
        if INTERPRETED and ours.dtype == torch.bfloat16:
            torch.testing.assert_close(ours, expected, rtol=2**-7, atol=0)
        else:
            assert torch.equal(ours, expected)

    return check
