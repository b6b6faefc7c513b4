from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.two_processes import run_world


@pytest.mark.slow
def test_two_processes_make_the_gradient_of_one_with_their_batches_together(tmp_path: Path) -> None:
    script = Path(__file__).with_name("ranks.py")
    assert run_world(script, tmp_path) == [0, 0]
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    one, two = found["one"], found["two"]
    assert set(one) == set(two)
    assert {"sub.mask_token", "points.weight"} <= set(one)
    for name, gradient in one.items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(two[name], gradient, atol=1e-5, rtol=1e-4)
