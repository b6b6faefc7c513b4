from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_two_processes_make_the_gradient_of_one_with_their_batches_together(tmp_path: Path) -> None:
    script = Path(__file__).with_name("ranks.py")
    for processes in ("1", "2"):
        subprocess.run([sys.executable, str(script), str(tmp_path), processes], check=True, timeout=300)
    one, two = (torch.load(tmp_path / f"gradients-{processes}.pt", weights_only=True) for processes in (1, 2))
    assert set(one) == set(two)
    assert {"sub.mask_token", "points.weight"} <= set(one)
    for name, gradient in one.items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(two[name], gradient, atol=1e-5, rtol=1e-4)
