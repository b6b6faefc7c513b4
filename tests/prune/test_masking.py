from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.prune.keeping import Scope
from vtk_cli.prune.masking import (
    MaskedConv2d,
    MaskedConvTranspose2d,
    MaskedLinear,
    MaskedNetwork,
    Selection,
    folded,
    masked,
    masks_of,
    prunable,
    set_masks,
    straight_through,
)
from vtk_cli.prune.weights import WeightRule, initialise_scores, initialise_weights, weights_sha256


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ConvTranspose2d(4, 8, 4, bias=False),
        nn.BatchNorm2d(8, affine=False),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(96, 5, bias=False),
    )


def searched(keep: str = "0.3", scope: Scope = "layer", seed: int = 0) -> MaskedNetwork:
    twin = masked(small_network(), Selection(Fraction(keep), scope))
    initialise_scores(twin.layers.values(), "uniform", scope, seed)
    return twin


def noise() -> torch.Tensor:
    return torch.randn(5, 4, 1, 1, generator=torch.Generator().manual_seed(1))


def test_the_gradient_passes_straight_through_to_every_score() -> None:
    c = 0.25
    scores = torch.tensor([0.3, -0.9, 0.1, -0.2, 0.5], requires_grad=True)
    theta = c * torch.tensor([1.0, 1, -1, -1, 1])
    mask = torch.tensor([False, True, False, False, True])
    weight = straight_through(scores.abs(), theta, mask)
    (weight * torch.tensor([1.0, 2, 3, 4, 5])).sum().backward()
    assert torch.equal(weight, torch.tensor([0, c, 0, 0, c]))
    assert torch.equal(scores.grad, c * torch.tensor([1.0, -2, -3, 4, 5]))


def test_in_a_network_every_score_gets_dl_dw_times_theta_pruned_or_not() -> None:
    twin = searched("0.2", "global")
    theta = {name: layer.weight.clone() for name, layer in twin.layers.items()}
    twin(noise()).square().mean().backward()
    plain = folded(copy.deepcopy(twin.network)).requires_grad_()
    plain(noise()).square().mean().backward()
    for name, layer in twin.layers.items():
        expected = plain.get_submodule(name).weight.grad * theta[name] * layer.scores.sign()
        torch.testing.assert_close(layer.scores.grad, expected)
        assert (layer.scores.grad[~layer.mask] != 0).any()


def test_a_score_of_zero_gets_no_gradient() -> None:
    scores = torch.zeros(3, requires_grad=True)
    straight_through(scores.abs(), torch.ones(3), torch.ones(3, dtype=torch.bool)).sum().backward()
    assert torch.equal(scores.grad, torch.zeros(3))


@pytest.mark.parametrize(
    ("plain", "shape", "kind"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 7), MaskedConv2d),
        (nn.ConvTranspose2d(4, 6, 4, 2, 1, output_padding=1), (2, 4, 5, 5), MaskedConvTranspose2d),
        (nn.Linear(4, 6), (2, 4), MaskedLinear),
    ],
)
def test_a_layer_that_keeps_everything_is_the_plain_layer_bit_for_bit(
    plain: nn.Module, shape: tuple[int, ...], kind: type[nn.Module]
) -> None:
    x = torch.randn(shape)
    expected = plain(x)
    twin = masked(nn.Sequential(plain), Selection(Fraction(1)))
    initialise_scores(twin.layers.values(), "uniform", "layer", 0)
    assert isinstance(twin.network[0], kind)
    assert torch.equal(twin(x), expected)
    assert torch.equal(folded(twin.network)(x), expected)


def test_pruned_weights_are_positive_zero() -> None:
    weight = straight_through(torch.ones(2), torch.tensor([-1.0, -1.0]), torch.tensor([True, False]))
    assert weight.tolist() == [-1, 0]
    assert not weight[1].signbit()


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_do_not_depend_on_the_sign_or_the_scale_of_scores(scope: Scope) -> None:
    twin = searched(scope=scope)
    before = masks_of(twin, Fraction("0.3"), scope)
    with torch.no_grad():
        for layer in twin.layers.values():
            layer.scores.mul_(-4.0)
    after = masks_of(twin, Fraction("0.3"), scope)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_no_weight_changes_in_training_not_even_by_weight_decay() -> None:
    twin = searched(scope="global")
    before = weights_sha256(twin)
    optimizer = torch.optim.AdamW([layer.scores for layer in twin.layers.values()], lr=0.1, weight_decay=0.5)
    first = {name: layer.mask.clone() for name, layer in twin.layers.items()}
    for _ in range(5):
        twin(noise()).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert weights_sha256(twin) == before
    assert all(layer.weight.grad is None and not layer.weight.requires_grad for layer in twin.layers.values())
    assert any(not torch.equal(first[name], layer.mask) for name, layer in twin.layers.items())


def test_training_runs_with_the_masks_of_the_scores_as_they_are_now() -> None:
    twin = searched()
    twin(noise())
    with torch.no_grad():
        for layer in twin.layers.values():
            layer.scores.copy_(torch.rand_like(layer.scores))
    twin(noise())
    now = masks_of(twin.network, Fraction("0.3"), "layer")
    assert all(torch.equal(layer.mask, now[name]) for name, layer in twin.layers.items())


def test_in_eval_mode_masks_are_chosen_once_until_the_scores_change(monkeypatch: pytest.MonkeyPatch) -> None:
    twin, chosen = searched().eval(), []
    original = twin.chosen
    monkeypatch.setattr(twin, "chosen", lambda: chosen.append(1) or original())
    twin(noise()), twin(noise())
    assert len(chosen) == 1
    with torch.no_grad():
        next(iter(twin.layers.values())).scores.mul_(2.0)
    twin(noise())
    assert len(chosen) == 2
    twin.load_state_dict(searched(seed=3).state_dict())
    twin(noise())
    assert len(chosen) == 3


def test_folding_changes_no_output() -> None:
    twin = searched(scope="global").eval()
    expected = twin(noise())
    plain = folded(copy.deepcopy(twin.network))
    assert {type(layer) for layer in prunable(plain).values()} == {nn.ConvTranspose2d, nn.Conv2d, nn.Linear}
    assert torch.equal(plain(noise()), expected)


def test_frozen_ends_stay_dense_and_out_of_the_pool() -> None:
    network = small_network()
    twin = masked(network, Selection(Fraction("0.1"), "global"), freeze_first=True, freeze_last=True)
    assert list(twin.layers) == ["3"]
    assert list(prunable(network)) == ["0", "3", "5"]
    assert not any(parameter.requires_grad for parameter in twin.parameters())


def test_nothing_left_to_prune_is_refused() -> None:
    with pytest.raises(UserError, match="no layer is left"):
        masked(nn.Sequential(nn.Linear(2, 2)), Selection(Fraction(1)), freeze_first=True)


def test_two_of_four_is_checked_when_the_network_is_masked() -> None:
    with pytest.raises(UserError, match=r"give --keep 0\.5"):
        masked(small_network(), Selection(Fraction("0.1"), "layer", "2:4"))


def test_fixed_masks_drop_the_scores_and_stay() -> None:
    twin = searched()
    masks = {name: torch.rand(layer.mask.shape) < 0.5 for name, layer in twin.layers.items()}
    set_masks(twin.network, masks)
    twin(noise())
    assert all(torch.equal(layer.mask, masks[name]) and layer.scores is None for name, layer in twin.layers.items())
    with pytest.raises(ValueError, match="other layers"):
        set_masks(twin.network, {"0": masks["0"]})


def test_weights_trained_under_a_fixed_mask_get_gradients_where_they_are_kept() -> None:
    twin = masked(small_network(), Selection(Fraction(1)))
    initialise_weights(twin, WeightRule())
    masks = {name: torch.rand(layer.mask.shape) < 0.5 for name, layer in twin.layers.items()}
    set_masks(twin.network, masks)
    for layer in twin.layers.values():
        layer.weight.requires_grad_()
    twin(noise()).square().mean().backward()
    assert all((layer.weight.grad[~masks[name]] == 0).all() for name, layer in twin.layers.items())
    assert all((layer.weight.grad[masks[name]] != 0).any() for name, layer in twin.layers.items())


def test_a_shared_layer_is_pruned_once() -> None:
    shared = nn.Linear(3, 3, bias=False)
    assert list(prunable(nn.Sequential(shared, nn.ReLU(), shared))) == ["0"]
