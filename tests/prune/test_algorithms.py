from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.prune.algorithms import Search, SearchSettings, create_search, random_masks, recalibrate
from vtk_cli.prune.counts import counts, flips
from vtk_cli.prune.generators import create_generator
from vtk_cli.prune.keeping import AlgorithmName, Scope, kept_of
from vtk_cli.prune.magnitude import IterativeMagnitude
from vtk_cli.prune.masking import Selection, masked
from vtk_cli.prune.weights import WeightRule, initialise_weights, weights_sha256

KEEP = Fraction("0.3")
ALL: list[AlgorithmName] = ["edge-popup", "gem-miner", "imp", "magnitude", "dense", "random", "sparse"]
FROZEN: list[AlgorithmName] = ["edge-popup", "gem-miner", "random"]


def generator() -> nn.Module:
    made = create_generator("dcgan-tiny", 16, 1, nz=8, ngf=8)
    initialise_weights(made, WeightRule("kaiming-normal", seed=2))
    return made


def settings(steps: int = 12, scope: Scope = "global", **changes: object) -> SearchSettings:
    return SearchSettings(Selection(KEEP, scope), steps, seed=1, rounds=2, **changes)


def trained(algorithm: AlgorithmName, steps: int = 12, **changes: object) -> Search:
    search = create_search(algorithm, generator(), settings(steps, **changes))
    parameters = search.trained()
    optimizer = torch.optim.Adam(parameters, lr=0.05) if parameters else None
    noise = torch.Generator().manual_seed(0)
    for step in range(steps if optimizer is not None else 0):
        search.begin_step(step, optimizer)
        loss = search(torch.randn(8, 8, generator=noise)).add(0.5).square().mean()
        penalty = search.penalty()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
    search.finish()
    return search


@pytest.mark.parametrize("algorithm", ALL)
def test_exactly_the_promised_number_of_weights_is_kept_at_the_end(algorithm: AlgorithmName) -> None:
    found = counts(trained(algorithm).network)
    assert found.kept == (found.n if algorithm == "dense" else kept_of(found.n, KEEP))


@pytest.mark.parametrize("algorithm", ["edge-popup", "imp", "magnitude", "random", "sparse"])
def test_every_layer_keeps_its_share_where_that_is_the_scope(algorithm: AlgorithmName) -> None:
    for layer in counts(trained(algorithm, scope="layer").network).layers:
        assert layer.kept == kept_of(layer.n, KEEP)


@pytest.mark.parametrize("algorithm", ALL)
def test_weights_change_only_where_they_are_trained(algorithm: AlgorithmName) -> None:
    same = weights_sha256(trained(algorithm).network) == weights_sha256(generator())
    assert same == (algorithm in FROZEN)


@pytest.mark.parametrize("algorithm", ALL)
def test_the_same_seeds_give_the_same_masks_and_weights(algorithm: AlgorithmName) -> None:
    first, second = trained(algorithm).state_dict(), trained(algorithm).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("algorithm", ["edge-popup", "gem-miner", "dense", "sparse"])
def test_training_brings_the_loss_down(algorithm: AlgorithmName) -> None:
    noise = torch.randn(64, 8)
    before = create_search(algorithm, generator(), settings())(noise).add(0.5).square().mean()
    after = trained(algorithm, 40)(noise).add(0.5).square().mean()
    assert after < 0.7 * before


def test_random_masks_are_uniform_over_weights_and_differ_by_seed() -> None:
    twin = masked(generator(), Selection(Fraction("0.5"), "global"))
    first, second = (random_masks(twin, Selection(Fraction("0.5"), "global"), seed) for seed in (0, 1))
    n = sum(mask.numel() for mask in first.values())
    assert abs(flips(first, second) - n / 2) < 4 * n**0.5
    for mask in first.values():
        assert abs(int(mask.sum()) - mask.numel() / 2) < 4 * mask.numel() ** 0.5


def test_a_random_mask_trains_nothing_and_a_sparse_one_the_same_mask() -> None:
    random, sparse = (create_search(name, generator(), settings()) for name in ("random", "sparse"))
    assert random.trained() == []
    assert all(torch.equal(random.twin.layers[name].mask, layer.mask) for name, layer in sparse.twin.layers.items())
    assert len(sparse.trained()) == len(sparse.twin.layers)


def test_ends_that_are_frozen_are_neither_masked_nor_trained() -> None:
    for algorithm in ("edge-popup", "sparse", "imp"):
        search = trained(algorithm, freeze_first=True, freeze_last=True)
        rows = counts(search.network).layers
        assert (rows[0].kept, rows[-1].kept) == (rows[0].n, rows[-1].n)
        fresh = generator()
        assert torch.equal(search.network.body.layers[0].weight, fresh.body.layers[0].weight)
        middle = sum(row.n for row in rows[1:-1])
        assert sum(row.kept for row in rows[1:-1]) == kept_of(middle, KEEP)


def test_gem_miner_rounds_scores_and_lets_the_smallest_die_for_good() -> None:
    search = create_search("gem-miner", generator(), settings(steps=100))
    layers = search.twin.layers
    search(torch.randn(4, 8))
    assert all(torch.equal(layer.mask, layer.scores > 0.5) for layer in layers.values())
    assert search.prune_steps == 5
    n = sum(layer.mask.numel() for layer in layers.values())
    alive = n
    for step in range(5, 100, 5):
        smallest = torch.cat([layer.scores[layer.alive] for layer in layers.values()]).sort().values
        search.begin_step(step)
        left = sum(int(layer.alive.sum()) for layer in layers.values())
        share = 1 - 0.3 ** (5 / 100)
        assert left == max(alive - -int(-alive * share // 1), kept_of(n, KEEP))
        assert torch.cat([layer.scores[layer.alive] for layer in layers.values()]).min() >= smallest[alive - left - 4]
        alive = left
    assert alive == pytest.approx(n * 0.3 ** (95 / 100), rel=0.02)
    assert all((layer.scores[~layer.alive] == 0).all() for layer in layers.values())


def test_gem_miners_dead_scores_get_no_gradient_and_its_penalty_is_that_of_the_code() -> None:
    search = create_search("gem-miner", generator(), settings(steps=20))
    search.begin_step(1)
    search(torch.randn(4, 8)).square().sum().backward()
    for layer in search.twin.layers.values():
        assert (layer.scores.grad[~layer.alive] == 0).all()
    total = sum(layer.scores.square().sum() for layer in search.twin.layers.values())
    torch.testing.assert_close(search.penalty(), 5e-7 * total)


def test_scores_of_gem_miner_are_clamped() -> None:
    search = create_search("gem-miner", generator(), settings(steps=20))
    with torch.no_grad():
        search.scores[0].fill_(3.0)
    search.begin_step(search.clamp_steps)
    assert search.scores[0].max() == 1


def test_magnitude_keeps_the_largest_weights() -> None:
    search = create_search("magnitude", generator(), settings(scope="layer"))
    for layer in search.twin.layers.values():
        assert layer.weight[layer.mask].abs().min() >= layer.weight[~layer.mask].abs().max()


def test_iterative_magnitude_prunes_by_rounds_and_sets_weights_back() -> None:
    search = create_search("imp", generator(), settings(steps=12, rewind=1))
    assert isinstance(search, IterativeMagnitude)
    weights = search.trained()
    optimizer = torch.optim.Adam(weights, lr=0.1)
    n, kept, early = counts(search.network).n, [], None
    for step in range(12):
        search.begin_step(step, optimizer)
        if step == 1:
            early = [weight.detach().clone() for weight in weights]
        if step in (4, 8):
            assert all(torch.equal(a, b) for a, b in zip(weights, early, strict=True))
            assert not optimizer.state
        kept.append(counts(search.network).kept)
        search(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert kept == [n] * 4 + [round(n * 0.3**0.5)] * 4 + [kept_of(n, KEEP)] * 4


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UserError, match="--rounds"):
        create_search("imp", generator(), settings(steps=2))
    with pytest.raises(UserError, match="--rewind"):
        create_search("imp", generator(), settings(rewind=4))
    half = Selection(Fraction(1, 2), "layer", "2:4")
    for algorithm, match in (("gem-miner", "no 2:4"), ("imp", "one round")):
        with pytest.raises(UserError, match=match):
            create_search(algorithm, generator(), SearchSettings(half, 12, rounds=2))
    with pytest.raises(UserError, match="--score-init"):
        create_search("edge-popup", generator(), settings(score_init="kaiming"))


def test_two_of_four_is_searched_and_kept() -> None:
    made = create_generator("dcgan-tiny", 16, 1, nz=8, ngf=16)
    search = create_search("edge-popup", made, SearchSettings(Selection(Fraction(1, 2), "layer", "2:4"), 1))
    search.finish()
    found = counts(search.network)
    assert [layer.kept * 2 for layer in found.layers] == [layer.n for layer in found.layers]


def test_recalibrated_statistics_are_the_average_over_all_batches() -> None:
    network = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3, affine=False))
    batches = [torch.randn(16, 4) + shift for shift in range(5)]
    network(torch.randn(8, 4) * 100)
    recalibrate(network, batches)
    outputs = torch.stack([network[0](batch) for batch in batches]).detach()
    torch.testing.assert_close(network[1].running_mean, outputs.mean(dim=(0, 1)))
    torch.testing.assert_close(network[1].running_var, outputs.var(dim=1).mean(dim=0))
    assert network[1].momentum == 0.1
    assert not network.training


def test_counts_say_what_is_kept_of_all_parameters_and_warn_of_thin_layers() -> None:
    made = create_generator("dcgan-tiny", 16, 1, nz=8, ngf=8, bias=True)
    search = create_search("random", made, settings())
    found = counts(search.network)
    assert found.n + found.other == sum(parameter.numel() for parameter in made.parameters())
    assert found.kept_fraction_of_all > found.kept_fraction == found.kept / found.n
    assert any("widen the generator" in line for line in found.warnings())
    layer = next(iter(search.twin.layers.values()))
    layer.mask.zero_()
    layer.mask.view(-1)[0] = True
    assert "body.layers.0 (1 of 2048)" in counts(search.network).warnings()[0]
