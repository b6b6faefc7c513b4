"""The claim of SAT at the smallest scale that shows it."""

import pytest
import torch

from vtk_cli.console import Console
from vtk_cli.similarity.measures import agreement
from vtk_cli.similarity.proof import CONTESTANTS, SMALL, compare, training_seed
from vtk_cli.similarity.statistics import separate_families


@pytest.mark.slow
def test_two_resnets_and_two_vits_are_told_apart_by_sat_and_not_so_well_by_agreement(tmp_path, monkeypatch):
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    chosen = [(contestant, training_seed(contestant, 0)) for contestant in SMALL]
    rows, result = compare(chosen, images=None, smallest=False, device=torch.device("cpu"), console=Console(quiet=True))
    families = [contestant.family for contestant in SMALL]
    sat = separate_families(result.matrix.score, families)
    baseline = separate_families(agreement(rows.comparison.logits.argmax(axis=2)), families)
    assert sat.lowest_within > sat.highest_between
    assert sat.auc > baseline.auc
    assert result.control.whitebox.min() > 0.99
    assert result.control.noise_floor.max() < 0.1
    assert result.control.accuracy.min() > 0.9


def test_every_network_of_every_seed_starts_elsewhere():
    seeds = [training_seed(contestant, seed) for seed in range(10) for contestant in CONTESTANTS]
    assert len(set(seeds)) == len(seeds)
    assert {contestant.name for contestant in SMALL} == {"rn10", "rnb14", "vit8c", "vit8g"}
