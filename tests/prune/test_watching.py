"""What is written down of a search on its way."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.prune.algorithms import SearchSettings, create_search
from vtk_cli.prune.generators import create_generator
from vtk_cli.prune.keeping import AlgorithmName
from vtk_cli.prune.masking import Selection
from vtk_cli.prune.matching import MovingAverage
from vtk_cli.prune.pictures import Shown, draw_rows
from vtk_cli.prune.samples import latents
from vtk_cli.prune.watching import Strips, WatchedSearch
from vtk_cli.prune.weights import WeightRule, initialise_weights

CPU = torch.device("cpu")


def watched(algorithm: AlgorithmName = "edge-popup") -> WatchedSearch:
    generator = create_generator("dcgan-tiny", 16, 1, nz=8, ngf=8)
    initialise_weights(generator, WeightRule())
    settings = SearchSettings(Selection(Fraction("0.1"), "global"), 10)
    return WatchedSearch(create_search(algorithm, generator, settings), MovingAverage("none", 1.0, [1]))


def test_flips_count_the_weights_that_changed_sides() -> None:
    model = watched()
    assert model.flips() == 0
    before = model.masks()
    first = model.search.trained()[0]
    lowest = first.detach().abs().reshape(-1).argmin()
    with torch.no_grad():
        first.view(-1)[lowest] = 1.0  # now kept; another one has to go
    assert model.flips() == 2
    assert sum(int((before[name] != mask).sum()) for name, mask in model.masks().items()) == 2
    assert model.flips() == 0
    assert int(model.looks) == 3


@pytest.mark.parametrize(("algorithm", "expected"), [("dense", None), ("random", 0), ("sparse", 0)])
def test_what_has_no_scores_flips_nothing(algorithm: AlgorithmName, expected: int | None) -> None:
    assert watched(algorithm).flips() == expected


def test_what_was_seen_travels_in_the_state() -> None:
    model, other = watched(), watched()
    with torch.no_grad():
        model.search.trained()[0].neg_().mul_(5)
    assert model.flips()
    other.load_state_dict(model.state_dict())
    assert other.flips() == 0
    assert int(other.looks) == 2


def test_strips_are_the_same_noise_at_every_stop(tmp_path: Path) -> None:
    model = watched().eval()
    strips = Strips(tmp_path, latents(4, 8, 3), CPU)
    for step in (20, 3):
        strips({"step": step}, model, None)
    assert [step for step, _ in strips.found()] == [3, 20]
    pictures = [np.asarray(Image.open(path)) for _, path in strips.found()]
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_samples_are_the_same_bytes_for_the_same_samples(tmp_path: Path, channels: int) -> None:
    images = torch.randint(0, 256, (4, channels, 16, 16), dtype=torch.uint8)
    rows = [Shown("$ours", images), Shown("theirs", np.zeros((16, 64, 3), np.uint8))]
    drawn = [draw_rows(tmp_path / name, rows, title="t").png.read_bytes() for name in ("one", "two")]
    assert drawn[0] == drawn[1]
