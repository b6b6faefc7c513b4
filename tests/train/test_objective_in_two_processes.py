from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_two_processes_make_the_gradient_of_one_with_their_batches_together(tmp_path: Path) -> None:
    script = Path(__file__).with_name("ranks.py")
    ranks = [subprocess.Popen([sys.executable, str(script), str(tmp_path), rank]) for rank in ("0", "1")]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    one, two = found["one"], found["two"]
    assert set(one) == set(two)
    assert {"sub.mask_token", "points.weight"} <= set(one)
    for name, gradient in one.items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(two[name], gradient, atol=1e-5, rtol=1e-4)
