from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.prune.keeping import Scope, kept_of
from vtk_cli.prune.selection import select, select_globally, top_k_mask, two_of_four_mask

LAYERS = {"a": nn.Linear(6, 4), "b": nn.Conv2d(3, 5, 3), "c": nn.ConvTranspose2d(2, 4, 2)}


def amounts(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(layer.weight.shape, generator=generator) for name, layer in LAYERS.items()}


def test_the_largest_amounts_are_kept() -> None:
    scores = torch.tensor([0.3, -0.9, 0.1, -0.2, 0.5])
    assert top_k_mask(scores.abs(), kept_of(5, Fraction("0.4"))).tolist() == [False, True, False, False, True]


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=40), st.data())
def test_the_mask_is_that_of_a_stable_sort(values: list[float], data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(values)))
    first = sorted(range(len(values)), key=lambda index: (-values[index], index))[:kept]
    mask = top_k_mask(torch.tensor(values), kept)
    assert mask.nonzero().flatten().tolist() == sorted(first)


def test_of_equal_amounts_the_first_are_kept() -> None:
    assert top_k_mask(torch.ones(3, 4), 5).flatten().nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_more_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="0 to 4"):
        top_k_mask(torch.ones(4), 5)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_of_a_smaller_fraction_lie_within_those_of_a_larger(scope: Scope) -> None:
    found = [select(LAYERS, amounts(), Fraction(tenths, 10), scope) for tenths in range(1, 11)]
    for smaller, larger in pairwise(found):
        assert all((smaller[name] <= larger[name]).all() for name in LAYERS)


@pytest.mark.parametrize("keep", ["0.03", "0.1", "0.333", "0.5", "1"])
def test_a_layer_keeps_its_own_share_and_all_together_theirs(keep: str) -> None:
    share, sizes = Fraction(keep), {name: layer.weight.numel() for name, layer in LAYERS.items()}
    by_layer = select(LAYERS, amounts(), share, "layer")
    together = select(LAYERS, amounts(), share, "global")
    assert {name: int(mask.sum()) for name, mask in by_layer.items()} == {
        n: kept_of(s, share) for n, s in sizes.items()
    }
    assert sum(int(mask.sum()) for mask in together.values()) == kept_of(sum(sizes.values()), share)


def test_no_layer_dies_and_the_total_still_holds() -> None:
    uneven = amounts()
    uneven["a"] *= 1e-6
    masks = select(LAYERS, uneven, Fraction("0.05"), "global")
    assert sum(int(mask.sum()) for mask in masks.values()) == kept_of(
        sum(m.numel() for m in masks.values()), Fraction("0.05")
    )
    assert masks["a"].flatten().nonzero().flatten().tolist() == [int(uneven["a"].argmax())]
    # The others lose their smallest survivor for it.
    without = {name: uneven[name] for name in ("b", "c")}
    expected = select_globally(without, int(sum(masks[name].sum() for name in without)))
    assert all(torch.equal(masks[name], expected[name]) for name in without)


def test_fewer_weights_than_layers_become_one_a_layer() -> None:
    masks = select(LAYERS, amounts(), Fraction(1, 10**6), "global")
    assert [int(mask.sum()) for mask in masks.values()] == [1, 1, 1]


def test_one_threshold_cuts_all_layers_where_none_dies() -> None:
    masks, values = select(LAYERS, amounts(), Fraction("0.5"), "global"), amounts()
    kept = torch.cat([values[name][mask] for name, mask in masks.items()])
    dropped = torch.cat([values[name][~mask] for name, mask in masks.items()])
    assert kept.min() > dropped.max()


def test_two_of_every_four_are_the_largest_and_of_equal_ones_the_first() -> None:
    rows = torch.tensor([[3.0, 1.0, 2.0, 0.0, 1.0, 1.0, 1.0, 1.0]])
    assert two_of_four_mask(rows).int().tolist() == [[1, 0, 1, 0, 1, 1, 0, 0]]


def test_two_of_four_runs_along_what_an_output_sums_over() -> None:
    layers = {"conv": nn.Conv2d(4, 3, 3), "up": nn.ConvTranspose2d(8, 3, 2), "linear": nn.Linear(8, 5)}
    values = {name: torch.rand_like(layer.weight) for name, layer in layers.items()}
    masks = select(layers, values, Fraction(1, 2), "global", "2:4")
    for name, mask in masks.items():
        rows = (mask.transpose(0, 1) if name == "up" else mask).flatten(1)
        assert (rows.view(len(rows), -1, 4).sum(dim=2) == 2).all()
        assert mask.shape == layers[name].weight.shape


def test_two_of_four_refuses_another_fraction_and_rows_that_do_not_divide() -> None:
    with pytest.raises(UserError, match=r"give --keep 0\.5"):
        select(LAYERS, amounts(), Fraction("0.1"), "layer", "2:4")
    with pytest.raises(UserError, match="layer a sums over 6 weights"):
        select(LAYERS, amounts(), Fraction(1, 2), "layer", "2:4")
