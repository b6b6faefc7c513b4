"""Costs: the published figures exactly, and the table against what networks really compute."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.models.spaces.small_spaces import counted_macs, counted_params, on_meta, small_shape
from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import RELEASED, SPACES
from vtk_cli.models.spaces.cost import Cost, CostRange, Limits, in_millions

DARTS, NASBENCH, SHUFFLE, MOBILE = (SPACES[name] for name in ("darts", "nasbench201", "shufflenetv2", "mobilenet"))
NATS_STRING = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"


def test_released_genotypes_cost_on_imagenet_what_their_authors_report() -> None:
    """Multiply-accumulates and parameters exactly; in millions what the authors' own counter says."""
    figures = {
        "genas-flatness-cifar10": (610_058_800, 5_564_090, 610.890),
        "genas-angle-flatness-cifar10": (592_905_456, 5_344_118, 593.608),
        "genas-flatness-cifar100": (579_473_040, 5_195_205, 580.208),
        "genas-angle-flatness-cifar100": (602_400_192, 5_413_696, 603.167),
    }
    for name, (macs, params, official) in figures.items():
        space, released = RELEASED[name]
        shape = space.shape(released.form, 1000, width=released.width)
        assert space.cost(released.genes, shape) == Cost(macs, params)
        assert space.official_macs(released.genes, shape) / 1e6 == pytest.approx(official, abs=5e-4)


def test_released_genotypes_cost_on_cifar_what_their_authors_network_costs() -> None:
    millions = {
        name.removeprefix("genas-"): round(space.cost(released.genes, space.shape("cifar", 10)).macs / 1e6, 3)
        for name, (space, released) in RELEASED.items()
        if name.startswith("genas-")
    }
    assert millions == {
        "flatness-cifar100": 636.352,
        "angle-flatness-cifar100": 604.363,
        "flatness-cifar10": 504.609,
        "angle-flatness-cifar10": 714.734,
    }


def test_supernet_of_darts_has_the_parameters_of_the_released_one() -> None:
    for classes, params in ((10, 2_005_114), (100, 2_028_244)):
        assert counted_params(on_meta(DARTS.supernet, DARTS.shape("supernet", classes))) == params


def test_shufflenets_cost_what_spos_counts() -> None:
    shape = SHUFFLE.shape("stand-alone", 1000)
    millions = [round(SHUFFLE.cost((choice,) * 20, shape).macs / 1e6, 3) for choice in range(4)]
    assert millions == [295.842, 313.655, 340.374, 358.826]
    released = SHUFFLE.parse("spos-shufflenetv2")
    cost = SHUFFLE.cost(released, shape)
    assert round(cost.macs / 1e6, 3) == 322.919
    assert cost.params == pytest.approx(3.5e6, rel=0.02)


def test_mobilenets_cost_what_rlnas_counts() -> None:
    shape = MOBILE.shape("stand-alone", 1000)
    millions = [round(MOBILE.cost((choice,) * 21, shape).macs / 1e6, 3) for choice in range(6)]
    assert millions == [460.909, 853.406, 497.563, 926.713, 552.543, 1036.674]
    shallow = tuple(0 if layer in {0, 4, 8, 12, 16, 20} else -1 for layer in range(21))
    assert round(MOBILE.cost(shallow, shape).macs / 1e6, 3) == 182.479
    assert MOBILE.cost_range(shape).macs == (182_479_200, 1_036_673_856)


def test_network_of_nasbench201_costs_what_the_benchmark_holds() -> None:
    genes, shape = NASBENCH.parse(NATS_STRING), NASBENCH.shape("stand-alone", 10)
    assert NASBENCH.cost(genes, shape) == Cost(113_951_360, 802_426)
    assert NASBENCH.official_macs(genes, shape) == 113_951_370


def test_half_the_side_is_a_quarter_of_the_work_of_cells() -> None:
    genes = NASBENCH.parse(NATS_STRING)
    large, small = (NASBENCH.cost(genes, NASBENCH.shape("stand-alone", 120, resolution=side)) for side in (32, 16))
    assert (large.macs - 64 * 120) == 4 * (small.macs - 64 * 120)
    assert large.params == small.params


def full_shapes():
    for name, space in SPACES.items():
        for form in space.forms:
            if form != "supernet":
                yield pytest.param(space, form, id=f"{name}-{form}")


@pytest.mark.parametrize(("space", "form"), list(full_shapes()))
def test_table_is_what_a_network_of_full_size_computes(space, form, rng) -> None:
    genes, shape = space.sample(rng), space.shape(form, 13)
    network = on_meta(space.network, genes, shape)
    images = torch.empty(1, space.input_channels, shape.resolution, shape.resolution, device="meta")
    assert space.cost(genes, shape) == Cost(counted_macs(network, images), counted_params(network))


def test_table_is_what_small_networks_and_paths_compute_at_even_and_odd_sizes(space, rng) -> None:
    for form, resolution in itertools.product(space.forms, (16, 17, 31)):
        shape, genes = small_shape(space, form, resolution=resolution), space.sample(rng)
        images = torch.empty(1, space.input_channels, resolution, resolution, device="meta")
        if form == "supernet":
            supernet = on_meta(space.supernet, shape)
            macs = counted_macs(supernet, images, genes)
            params = sum(p.numel() for p in supernet.active_parameters(genes).values())
        else:
            network = on_meta(space.network, genes, shape)
            macs, params = counted_macs(network, images), counted_params(network)
        assert space.cost(genes, shape) == Cost(macs, params)


@pytest.mark.parametrize("name", ["chain-a", "chain-b", "digits-mini", "nasbench201"])
def test_range_is_that_of_all_architectures(name) -> None:
    space = SPACES[name]
    shape = small_shape(space, "stand-alone")
    table = space.table(shape)
    costs = [table.cost(genes) for genes in itertools.product(*space.choices)]
    assert len(costs) == space.size
    macs, params = [cost.macs for cost in costs], [cost.params for cost in costs]
    assert space.cost_range(shape) == CostRange((min(macs), max(macs)), (min(params), max(params)))


def test_range_of_darts_is_attained_by_two_pools_and_by_two_large_convolutions_a_node() -> None:
    shape = DARTS.shape("cifar", 10)
    cheap, dear = ((op, op, op, op, 0, op, op, 0, 0, op, op, 0, 0, 0) for op in (1, 5))
    found = DARTS.cost_range(shape)
    assert found.macs[0] == DARTS.cost(cheap + cheap, shape).macs == DARTS.table(shape).fixed.macs
    assert found.params == (DARTS.cost(cheap + cheap, shape).params, DARTS.cost(dear + dear, shape).params)
    assert found.macs[1] == DARTS.cost(dear + dear, shape).macs


def test_width_that_fits_600_million_is_the_nearest_even_one() -> None:
    space, released = RELEASED["genas-flatness-cifar100"]
    shape = space.shape("imagenet", 1000)
    macs = {
        width: space.cost(released.genes, space.shape("imagenet", 1000, width=width)).macs for width in range(2, 80, 2)
    }
    for target in (600e6, *range(2_000_000, 60_000_000, 3_000_000), *range(100_000_000, 1_000_000_000, 70_000_000)):
        fitted = space.fit_width(released.genes, target, shape).width
        assert fitted == min(macs, key=lambda width, target=target: abs(macs[width] - target))
    own = space.cost(released.genes, space.shape("imagenet", 1000, width=46)).macs
    assert space.fit_width(released.genes, own, shape).width == 46
    assert space.fit_width(released.genes, 1.0, shape).width == 2


def test_limits_admit_what_lies_between_them() -> None:
    limits = Limits(max_macs=100, min_macs=10, max_params=5)
    assert [limits.admit(cost) for cost in (Cost(100, 5), Cost(10, 5), Cost(101, 5), Cost(9, 5), Cost(50, 6))] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert Limits().admit(Cost(10**12, 10**12))


def test_limits_that_no_architecture_meets_name_what_is_attainable() -> None:
    attainable = MOBILE.cost_range(MOBILE.shape("stand-alone", 1000))
    with pytest.raises(UserError, match=r"limit 50 M is below the space minimum 182\.5 M; .*182\.5 M to 1036\.7 M"):
        Limits(max_macs=50e6).check(attainable)
    with pytest.raises(UserError, match=r"--min-flops: limit 2000 M is above the space maximum 1036\.7 M"):
        Limits(min_macs=2e9).check(attainable)
    with pytest.raises(UserError, match=r"--max-params: limit 1 M is below the space minimum 3\.3 M"):
        Limits(max_params=1e6).check(attainable)
    with pytest.raises(UserError, match=r"--min-flops: 400 M is above --max-flops 300 M"):
        Limits(max_macs=300e6, min_macs=400e6).check(attainable)
    Limits(max_macs=475e6, min_macs=200e6, max_params=5e6).check(attainable)


def test_counts_below_a_million_keep_their_digits() -> None:
    assert [in_millions(count) for count in (182_479_200, 50e6, 123_456, 1_036_673_856)] == [
        "182.5 M",
        "50 M",
        "0.123 M",
        "1036.7 M",
    ]
