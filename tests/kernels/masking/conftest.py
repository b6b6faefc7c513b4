"""When two results of the masking operators agree."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


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
