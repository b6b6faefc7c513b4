from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.prune.keeping import ScoreInit, WeightInit
from vtk_cli.prune.masking import Selection, masked
from vtk_cli.prune.weights import (
    WeightRule,
    effective_sha256,
    initialise_scores,
    initialise_weights,
    load_weights,
    sigma,
    signs,
    true_fan,
    weights_sha256,
)

WORD_OF_LAYER_3 = 0xA2F18B514F3549B9


def network() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(16, 32, 4, bias=False), nn.Conv2d(32, 64, 3), nn.Linear(64, 50))


def test_the_signs_are_the_bits_of_philox_low_bit_first() -> None:
    assert signs(0, 0, 16).int().tolist() == [1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1]
    assert signs(1, 3, 64).int().tolist() == [WORD_OF_LAYER_3 >> bit & 1 for bit in range(64)]


def _philox4x64(counter: int, key: tuple[int, int]) -> int:
    """The first word of Philox4x64-10 as its authors define it, in Python's integers."""
    mask, (k0, k1) = 2**64 - 1, key
    words = [counter, 0, 0, 0]
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [second >> 64 ^ words[1] ^ k0, second & mask, first >> 64 ^ words[3] ^ k1, first & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return words[0]


def test_the_bits_are_those_of_the_generators_definition() -> None:
    # Word 4 (c - 1) of the stream is the first of the block at counter c; counting starts at 1.
    for counter in (1, 2, 9):
        word = _philox4x64(counter, (7, 2))
        first = 256 * (counter - 1)
        assert signs(7, 2, 2400)[first : first + 64].int().tolist() == [word >> bit & 1 for bit in range(64)]


def test_signs_of_a_layer_do_not_depend_on_how_many_are_asked_for() -> None:
    assert torch.equal(signs(5, 1, 1000)[:130], signs(5, 1, 130))


def test_signed_constants_have_one_size_and_balanced_signs() -> None:
    layer = nn.Conv2d(256, 256, 3, bias=False)
    initialise_weights(nn.Sequential(layer), WeightRule(seed=3))
    assert layer.weight.abs().unique().tolist() == [sigma(layer)]
    assert sigma(layer) == pytest.approx(0.029463, abs=5e-7)
    n = layer.weight.numel()
    assert abs(int((layer.weight > 0).sum()) - n / 2) < 4 * math.sqrt(n) / 2


def test_the_fan_is_the_number_of_inputs_that_reach_an_output() -> None:
    for layer, side in ((nn.Conv2d(6, 4, 3, padding=1, groups=2), 5), (nn.ConvTranspose2d(6, 4, 4, 2, 1), 5)):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
        assert layer(torch.ones(1, 6, side, side))[0, 0, side // 2, side // 2].item() == true_fan(layer)
    projection = nn.ConvTranspose2d(128, 4, 4, bias=False)
    nn.init.ones_(projection.weight)
    assert (projection(torch.ones(1, 128, 1, 1)) == 128).all()
    assert true_fan(projection) == 128
    assert sigma(projection) == 0.125
    assert true_fan(nn.Linear(7, 3)) == 7


@pytest.mark.parametrize(
    ("init", "std"), [("kaiming-normal", math.sqrt(2 / (32 * 9))), ("normal", 0.02), ("gaussian10", 10.0)]
)
def test_normal_weights_have_their_standard_deviation(init: WeightInit, std: float) -> None:
    made = network()
    initialise_weights(made, WeightRule(init, seed=1))
    weight = made[1].weight
    assert weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * weight.numel()))
    assert abs(weight.mean().item()) < 4 * std / math.sqrt(weight.numel())
    assert (made[1].bias == 0).all()


def test_scaling_the_fan_by_the_kept_fraction_widens_the_weights() -> None:
    layer = nn.Linear(32, 8)
    assert sigma(layer, Fraction("0.25")) == pytest.approx(2 * sigma(layer))


@pytest.mark.parametrize("init", ["signed-constant", "kaiming-normal"])
def test_weights_depend_on_their_seed_and_the_layers_number_alone(init: WeightInit) -> None:
    torch.manual_seed(0)
    first, second, other = network(), network(), network()
    initialise_weights(first, WeightRule(init, seed=1))
    torch.manual_seed(99)
    initialise_weights(second, WeightRule(init, seed=1))
    initialise_weights(other, WeightRule(init, seed=2))
    assert weights_sha256(first) == weights_sha256(second) != weights_sha256(other)
    same = nn.Sequential(nn.Linear(50, 64), nn.Linear(64, 50))
    initialise_weights(same, WeightRule(init, seed=1))
    assert not torch.equal(same[0].weight.flatten(), same[1].weight.flatten() * (sigma(same[0]) / sigma(same[1])))


def test_the_seed_of_scores_changes_no_weight_and_that_of_weights_no_score() -> None:
    found = {}
    for weight_seed, score_seed in ((1, 1), (1, 2), (2, 1)):
        twin = masked(network(), Selection(Fraction("0.5")))
        initialise_weights(twin, WeightRule("kaiming-normal", seed=weight_seed))
        initialise_scores(twin.layers.values(), "uniform", "layer", score_seed)
        scores = torch.cat([layer.scores.flatten() for layer in twin.layers.values()])
        found[weight_seed, score_seed] = weights_sha256(twin), scores
    assert found[1, 1][0] == found[1, 2][0] != found[2, 1][0]
    assert torch.equal(found[1, 1][1], found[2, 1][1])
    assert not torch.equal(found[1, 1][1], found[1, 2][1])


@pytest.mark.parametrize(
    ("init", "low", "high"),
    [("uniform", -0.1, 0.1), ("kaiming", -1 / math.sqrt(288), 1 / math.sqrt(288)), ("positive", 0, 1)],
)
def test_scores_fill_their_interval(init: ScoreInit, low: float, high: float) -> None:
    twin = masked(network(), Selection(Fraction("0.5")))
    initialise_scores(twin.layers.values(), init, "layer", 0)
    scores = twin.layers["1"].scores.detach()
    assert low <= scores.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < scores.max() <= high


def test_kaiming_scores_under_one_threshold_are_refused() -> None:
    twin = masked(network(), Selection(Fraction("0.5"), "global"))
    with pytest.raises(UserError, match="give --score-init uniform"):
        initialise_scores(twin.layers.values(), "kaiming", "global", 0)


def test_the_effective_hash_is_that_of_the_kept_weights() -> None:
    twin = masked(nn.Sequential(nn.Linear(8, 4, bias=False)), Selection(Fraction("0.5")))
    initialise_weights(twin, WeightRule())
    initialise_scores(twin.layers.values(), "uniform", "layer", 0)
    twin.refresh()
    layer = twin.layers["0"]
    by_hand = nn.Sequential(nn.Linear(8, 4, bias=False))
    with torch.no_grad():
        by_hand[0].weight.copy_(torch.where(layer.mask, layer.weight, torch.zeros(())))
    assert effective_sha256(twin) == weights_sha256(by_hand) == effective_sha256(by_hand) != weights_sha256(twin)


def test_a_search_may_start_from_a_checkpoint(tmp_path: Path) -> None:
    source, target, path = network(), network(), tmp_path / "theta.safetensors"
    save_file(source.state_dict(), path)
    assert load_weights(target, path) == sha256_file(path)
    assert weights_sha256(source) == weights_sha256(target)
    with pytest.raises(UserError, match=r"theta\.safetensors"):
        load_weights(nn.Linear(2, 2), path)


def test_sigma_is_a_number_of_float32() -> None:
    assert np.float32(sigma(nn.Linear(3, 2))) == sigma(nn.Linear(3, 2))
