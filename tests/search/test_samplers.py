"""Which paths a training step runs."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import chisquare

from tests.models.spaces.small_spaces import small_shape
from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.search.samplers import (
    SPOS_BINS,
    FairSampler,
    FlopsSampler,
    UniformSampler,
    default_bins,
    equal_bins,
)

CHAIN, MOBILE = SPACES["chain-a"], SPACES["mobilenet"]


def test_uniform_paths_are_every_architecture_equally_often() -> None:
    sampler = UniformSampler(CHAIN)
    counts = Counter(sampler.paths(seed)[0].genes for seed in range(6400))
    assert len(counts) == 64
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_paths_follow_from_the_seed_alone(space) -> None:
    shape = small_shape(space, space.alone)
    samplers = [UniformSampler(space), FlopsSampler(space, shape, equal_bins(space.cost_range(shape), 3))]
    samplers += [FairSampler(space)] if space.independent else []
    for sampler in samplers:
        once = [sampler.paths(seed) for seed in (2**63, 5, 0)]
        assert [sampler.paths(seed) for seed in (0, 5, 2**63)] == once[::-1]
        for paths in once:
            for path in paths:
                space.validate(path.genes)


@pytest.mark.parametrize("name", ["chain-a", "shufflenetv2", "mobilenet", "nasbench201"])
def test_fair_paths_train_every_choice_of_every_layer_once(name) -> None:
    space = SPACES[name]
    paths = FairSampler(space).paths(3)
    trained = Counter(
        (gene, value) for path in paths for gene, value in enumerate(path.genes) if (gene, value) not in path.resting
    )
    assert trained == Counter((gene, value) for gene, values in enumerate(space.choices) for value in values)
    assert len(paths) == max(map(len, space.choices))
    assert all(path.resting == frozenset() for path in paths[:-1])


def test_fair_paths_of_two_steps_pair_the_layers_differently() -> None:
    sampler = FairSampler(CHAIN)
    paths = Counter(path.genes for seed in range(1600) for path in sampler.paths(seed))
    assert len(paths) == 64
    assert chisquare(list(paths.values())).pvalue > 1e-3


def test_fairness_needs_independent_layers() -> None:
    with pytest.raises(UserError, match="strict fairness needs layers"):
        FairSampler(SPACES["darts"])


def test_paths_by_cost_fall_in_all_bins_equally_often() -> None:
    shape = CHAIN.shape("stand-alone", 10)
    table, bins = CHAIN.table(shape), equal_bins(CHAIN.cost_range(shape), 3)
    sampler = FlopsSampler(CHAIN, shape, bins)
    costs = [table.cost(sampler.paths(seed)[0].genes).macs for seed in range(1500)]
    counts = [sum(low <= cost < high for cost in costs) for low, high in bins]
    assert sum(counts) == 1500
    assert chisquare(counts).pvalue > 1e-3


def test_a_bin_that_no_path_falls_in_still_gives_a_path() -> None:
    shape = CHAIN.shape("stand-alone", 10)
    table, cheapest = CHAIN.table(shape), CHAIN.cost_range(shape).macs[0]
    empty = ((cheapest + 0.2, cheapest + 0.4),)
    assert not empty[0][0] <= table.cost(FlopsSampler(CHAIN, shape, empty).paths(0)[0].genes).macs < empty[0][1]


def test_bins_out_of_reach_are_refused_with_what_is_attainable() -> None:
    shape = MOBILE.shape("stand-alone", 1000)
    for bins in (((1e6, 2e6),), ((2e9, 3e9),), ((300e6, 300e6),)):
        with pytest.raises(UserError, match=r"attainable are 182\.5 M to 1036\.7 M"):
            FlopsSampler(MOBILE, shape, bins)
    with pytest.raises(UserError, match="needs bins"):
        FlopsSampler(MOBILE, shape, ())


def test_cells_of_darts_fall_in_bins_of_cost_too() -> None:
    darts = SPACES["darts"]
    shape = darts.shape("cifar", 10)
    table, bins = darts.table(shape), ((500e6, 520e6),)
    found = [table.cost(FlopsSampler(darts, shape, bins).paths(seed)[0].genes).macs for seed in range(5)]
    assert all(500e6 <= macs < 520e6 for macs in found)
    with pytest.raises(UserError, match="holds no network of darts"):
        FlopsSampler(darts, shape, ((darts.cost_range(shape).macs[1] + 1.0, 1e12),))


def test_bins_of_spos_are_seven_of_10_million() -> None:
    assert [(low / 1e6, high / 1e6) for low, high in SPOS_BINS] == [(low, low + 10) for low in range(290, 360, 10)]
    space = SPACES["shufflenetv2"]
    FlopsSampler(space, space.shape("stand-alone", 1000), SPOS_BINS)


def test_paths_of_shufflenets_are_drawn_from_the_bins_of_spos() -> None:
    space = SPACES["shufflenetv2"]
    shape = space.shape(space.alone, 1000)
    assert default_bins(space, shape) == SPOS_BINS
    table, sampler = space.table(shape), FlopsSampler(space, shape, SPOS_BINS)
    drawn = [table.cost(sampler.paths(seed)[0].genes).macs for seed in range(40)]
    assert len({macs // 10_000_000 for macs in drawn}) >= 4
    assert min(drawn) < 310e6
    assert max(drawn) > 330e6


def test_elsewhere_ten_bins_cover_what_there_is() -> None:
    space = SPACES["digits-mini"]
    shape = space.shape(space.alone, 10)
    bins = default_bins(space, shape)
    assert len(bins) == 10
    assert (bins[0][0], bins[-1][1]) == (space.cost_range(shape).macs[0], space.cost_range(shape).macs[1] + 1)
