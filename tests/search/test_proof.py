"""`vtk proof search`: its parts on a few networks, and what its claims are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.search.proof import Measured, _claims, prove
from vtk_cli.search.proof_lab import LOSS, MID_NAME, Lab, Scale


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))


def test_no_image_is_used_twice():
    lab = Lab.of("chain-a", Scale(), torch.device("cpu"))
    train, valid = set(lab.images.halves.train), set(lab.images.halves.valid)
    assert (len(train), len(valid), len(lab.test[1])) == (300, 500, 997)
    assert not train & valid
    seen = [lab.images.splits.train.read(index) for index in sorted(train | valid)]
    assert len(seen) == 800


def _measured(flat, angle, loss):
    truth = np.arange(8.0)
    ranks = {MID_NAME: flat, "angle": angle, LOSS: loss, "flatness, sigmas of the paper": loss}
    return Measured("chain-a", truth, (1.0,), {name: np.array(rows) for name, rows in ranks.items()}, {})


def test_claims_hold_for_a_perfect_score_and_fail_for_a_reversed_one():
    good, bad = [list(range(8))], [list(range(8))[::-1]]
    assert [claim.holds for claim in _claims(_measured(good, bad, good))] == [True] * 4
    assert [claim.holds for claim in _claims(_measured(bad, good, good))] == [False, False, True, False]


@pytest.mark.slow
def test_the_smallest_proof_is_made_once_and_kept(tmp_path):
    quiet = Console(quiet=True)
    first = prove([0], smallest=True, plots=tmp_path, device=torch.device("cpu"), console=quiet)
    again = prove([0], smallest=True, plots=tmp_path, device=torch.device("cpu"), console=quiet)
    assert first.data == again.data
    assert len(first.claims) == 4
    assert {len(table.rows) for table in first.tables} == {12}
