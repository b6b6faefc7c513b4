"""`vtk bench search`, on its smallest setting."""

from __future__ import annotations

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.families.discovery import members
from vtk_cli.search.bench import measure


def test_the_bench_and_the_proof_are_found():
    assert members("bench")["search"] == "vtk_cli.search.bench"
    assert members("proof")["search"] == "vtk_cli.search.proof"


@pytest.mark.slow
def test_scores_and_steps_are_compared_with_the_bare_passes():
    score, step = measure(smallest=True, device=torch.device("cpu"), console=Console(quiet=True))
    assert "10 passes" in score.name
    assert f"{60 / score.ours:.0f} candidates a minute" in score.note
    assert min(score.ours, score.theirs, step.ours, step.theirs) > 0
