from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from vtk_cli.console import Console
from vtk_cli.engine.loop import Plan, fit
from vtk_cli.errors import JobError, UserError
from vtk_cli.prune.algorithms import SearchSettings, create_search
from vtk_cli.prune.extractors import Extractor, Preprocessing, ReluTaps
from vtk_cli.prune.generators import create_generator
from vtk_cli.prune.keeping import AlgorithmName, MomentAverage
from vtk_cli.prune.masking import Selection
from vtk_cli.prune.matching import MomentLoss, MovingAverage, gaps
from vtk_cli.prune.moments import measure
from vtk_cli.prune.objective import MatchedSearch, MatchingObjective, NoiseBatches
from vtk_cli.prune.weights import WeightRule, initialise_weights, weights_sha256

CPU = torch.device("cpu")
STEPS = 30


def extractor() -> Extractor:
    torch.manual_seed(3)
    chain = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    return Extractor("small", ReluTaps(chain), Preprocessing((0.5,), (0.5,)), {})


class Run:
    def __init__(
        self,
        algorithm: AlgorithmName = "edge-popup",
        average: MomentAverage = "ema",
        noise_seed: int = 5,
        rate: float = 0.9,
    ) -> None:
        generator = create_generator("dcgan-tiny", 16, 1, nz=8, ngf=8)
        initialise_weights(generator, WeightRule(seed=2))
        settings = SearchSettings(Selection(Fraction("0.3"), "global"), STEPS, seed=1, rounds=2)
        search = create_search(algorithm, generator, settings)
        taps = extractor()
        images = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(8)).clamp(-1, 1)
        loss = MomentLoss(measure(taps, images.split(16), CPU), "layer")
        self.model = MatchedSearch(search, MovingAverage(average, rate, loss.sizes))
        self.optimizer = torch.optim.Adam(search.trained(), lr=3e-2, betas=(0.5, 0.999))
        self.objective = MatchingObjective(taps, loss, self.optimizer)
        self.batches = NoiseBatches(16, 8, 10, noise_seed)

    def fit(self, epochs: int = STEPS // 10, checkpoints: Path | None = None) -> Run:
        torch.manual_seed(0)
        fit(
            self.model,
            self.objective,
            self.batches,
            self.optimizer,
            plan=Plan(epochs),
            device=CPU,
            seed=0,
            evaluate=None,
            checkpoints=checkpoints,
            metrics=None,
            console=Console(quiet=True),
        )
        return self

    def masks(self) -> dict[str, torch.Tensor]:
        self.model.search.finish()
        return {name: layer.mask.clone() for name, layer in self.model.search.twin.layers.items()}


@pytest.mark.parametrize("average", ["ema", "none", "ama"])
def test_a_search_closes_the_gap_and_changes_no_weight(average: MomentAverage) -> None:
    run = Run(average=average, rate=1e-2 if average == "ama" else 0.9)
    before = weights_sha256(run.model.search.network)
    run.fit(1)
    first = sum(gaps(run.objective.latest)[name] for name in ("mean_gap", "variance_gap"))
    run = Run(average=average, rate=1e-2 if average == "ama" else 0.9).fit(8)
    last = sum(gaps(run.objective.latest)[name] for name in ("mean_gap", "variance_gap"))
    assert last < first
    assert weights_sha256(run.model.search.network) == before


@pytest.mark.parametrize("algorithm", ["edge-popup", "gem-miner", "imp"])
def test_a_search_that_was_interrupted_goes_on_bit_for_bit(algorithm: AlgorithmName, tmp_path: Path) -> None:
    whole = Run(algorithm, "ama", rate=1e-2).fit()
    Run(algorithm, "ama", rate=1e-2).fit(1, tmp_path)
    resumed = Run(algorithm, "ama", rate=1e-2).fit(checkpoints=tmp_path)
    expected, found = whole.model.state_dict(), resumed.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_seed_of_the_noise_changes_the_masks_alone() -> None:
    first, same, other = Run().fit(), Run().fit(), Run(noise_seed=6)
    assert weights_sha256(first.model.search.network) == weights_sha256(other.model.search.network)
    assert all(torch.equal(a, b) for a, b in zip(Run().model.search.scores, other.model.search.scores, strict=True))
    masks, again, others = first.masks(), same.masks(), other.fit().masks()
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    assert any(not torch.equal(masks[name], others[name]) for name in masks)


def test_several_batches_an_update_begin_one_step() -> None:
    run, begun = Run("gem-miner"), []
    run.model.search.begin_step = lambda step, optimizer: begun.append(step)
    fit(
        run.model,
        run.objective,
        run.batches,
        run.optimizer,
        plan=Plan(1, accumulate=2),
        device=CPU,
        seed=0,
        evaluate=None,
        checkpoints=None,
        metrics=None,
        console=Console(quiet=True),
    )
    assert begun == [0, 1, 2, 3, 4]


def test_noise_depends_on_its_place_and_not_on_where_an_epoch_is_entered() -> None:
    batches = NoiseBatches(4, 3, 5, seed=1)
    whole = list(batches.epoch(2, 0))
    entered = list(batches.epoch(2, 3))
    assert [len(whole), len(entered)] == [5, 2]
    assert torch.equal(whole[3][1], entered[0][1])
    assert not torch.equal(whole[0][1], next(batches.epoch(1, 0))[1])


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(UserError, match="give at least 2"):
        NoiseBatches(1, 3, 5, seed=1)


def test_a_loss_that_is_not_finite_stops_the_search() -> None:
    run = Run()
    run.objective._loss.targets.means[0].fill_(torch.nan)
    with pytest.raises(JobError, match="the loss is nan"):
        run.fit(1)
