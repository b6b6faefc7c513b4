"""Attacks against closed forms of linear networks, and what must not change them."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from vtk_cli.similarity.attack import Attack, adversarial, noisy, to_bytes
from vtk_cli.similarity.networks import as_function

ATTACKS = ("pgd", "pgd-margin", "apgd", "mifgsm", "fgsm")
SHAPE = (3, 4, 4)
PIXELS = 3 * 4 * 4


class Linear(nn.Module):
    """Logits W x + b of flattened pixels."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight))
        self.bias = nn.Parameter(torch.zeros(len(weight), dtype=self.weight.dtype) if bias is None else bias)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


def images(count, seed=0, dtype=torch.float64, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand((count, *SHAPE), generator=generator, dtype=dtype)


def linear(classes=2, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return Linear(torch.randn((classes, PIXELS), generator=generator, dtype=dtype))


def attacked(model, x, y, attack):
    with as_function(model) as network:
        return adversarial(network, x, y, attack, torch.arange(len(x)))[0]


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("eps", [8 / 255, 32 / 255, 0.9])
def test_every_attack_stays_in_the_ball_and_in_the_range_of_pixels(name, eps):
    x = images(6, dtype=torch.float32)
    model = linear(5, dtype=torch.float32)
    y = model(x).argmax(1)
    made = attacked(model, x, y, Attack(name, eps=eps, steps=7, step_size=eps / 3))
    assert (made - x).abs().max() <= eps + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1
    assert not torch.equal(made, x)


@pytest.mark.parametrize("eps", [8 / 255, 32 / 255, 0.05])
def test_rounding_to_bytes_stays_in_the_ball(eps):
    originals = (images(50, dtype=torch.float32) * 255).round().to(torch.uint8)
    x = originals.float() / 255
    made = (x + eps * (2 * images(50, seed=3, dtype=torch.float32) - 1)).clamp(0, 1)
    rounded = to_bytes(made, originals, eps)
    assert rounded.dtype == torch.uint8
    assert (rounded.float() / 255 - x).abs().max() <= eps + 1e-6
    assert (rounded.float() / 255 - made).abs().max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("random_start", [True, False])
def test_on_a_linear_two_class_network_the_attack_is_the_sign_of_the_weight_difference(name, random_start):
    eps = 0.1
    model = linear(2)
    x = images(8, low=0.3, high=0.7)  # no pixel can reach 0 or 1
    y = model(x).argmax(1)
    made = attacked(model, x, y, Attack(name, eps=eps, steps=10, step_size=eps / 4, random_start=random_start))
    difference = model.weight[y] - model.weight[1 - y]  # of the true class and the other
    expected = x - eps * difference.sign().view(-1, *SHAPE)
    assert torch.allclose(made, expected, atol=1e-12, rtol=0)
    margins = (model(x).gather(1, y[:, None]) - model(x).gather(1, 1 - y[:, None]))[:, 0]
    after = (model(made).gather(1, y[:, None]) - model(made).gather(1, 1 - y[:, None]))[:, 0]
    fall = eps * difference.abs().sum(1)
    assert torch.allclose(margins - after, fall)
    assert torch.equal(model(made).argmax(1) != y, margins < fall)


def test_the_linear_attack_is_the_best_of_all_corners_of_the_ball():
    eps, few = 0.2, 6  # 2^6 corners in the pixels that matter
    weight = torch.zeros((2, PIXELS), dtype=torch.float64)
    weight[:, :few] = torch.randn((2, few), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model = Linear(weight)
    x = images(3, low=0.4, high=0.6)
    y = model(x).argmax(1)
    made = attacked(model, x, y, Attack(eps=eps, steps=10, step_size=0.1, random_start=False))
    for image, label, ours in zip(x, y, made, strict=True):
        margins = []
        for corner in itertools.product((-eps, eps), repeat=few):
            moved = image.flatten().clone()
            moved[:few] += torch.tensor(corner, dtype=torch.float64)
            z = model(moved.view(1, *SHAPE))[0].detach()
            margins.append(float(z[label] - z[1 - label]))
        z = model(ours[None])[0].detach()
        assert float(z[label] - z[1 - label]) == pytest.approx(min(margins))


def test_networks_on_disjoint_pixels_do_not_transfer_and_parallel_ones_always_do():
    weight = torch.randn((2, PIXELS), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    half = torch.zeros(PIXELS, dtype=torch.float64)
    half[: PIXELS // 2] = 1
    left, right, parallel = Linear(weight * half), Linear(weight * (1 - half)), Linear(3.0 * weight * half)
    x = images(40, low=0.3, high=0.7)
    attack = Attack(eps=0.25, steps=10, step_size=0.1, random_start=False)
    y = left(x).argmax(1)
    made = attacked(left, x, y, attack)
    assert torch.equal(right(made), right(x))  # sign(0) = 0: the other half is not touched
    assert torch.equal(parallel(made).argmax(1) != y, left(made).argmax(1) != y)
    assert (left(made).argmax(1) != y).any()


@pytest.mark.parametrize("power", [-6, 5])
def test_multiplying_the_loss_by_a_power_of_two_changes_no_bit(power, monkeypatch):
    from vtk_cli.similarity import attack as module

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    x = images(6, dtype=torch.float32)
    y = model(x).argmax(1)
    settings = Attack(eps=0.1, steps=6, step_size=0.03)
    plain = attacked(model, x, y, settings)
    original = module._cross_entropy
    monkeypatch.setattr(module, "_cross_entropy", lambda logits, labels: 2.0**power * original(logits, labels))
    assert torch.equal(attacked(model, x, y, settings), plain)


def test_a_constant_added_to_all_logits_of_an_image_changes_hardly_a_pixel():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))

    class Shifted(nn.Module):
        def forward(self, x):
            return model(x) + torch.arange(len(x), dtype=x.dtype)[:, None] * 7.3

    x = images(20, dtype=torch.float32)
    y = model(x).argmax(1)
    settings = Attack(eps=0.1, steps=6, step_size=0.03)
    same = attacked(model, x, y, settings) == attacked(Shifted(), x, y, settings)
    assert same.float().mean() > 0.999


def test_an_image_is_attacked_the_same_in_any_batch_and_order():
    model = linear(4)
    x = images(11)
    y = model(x).argmax(1)
    numbers = torch.arange(100, 111)
    settings = Attack(eps=0.1, steps=3, step_size=0.01)
    with as_function(model) as network:
        whole, _ = adversarial(network, x, y, settings, numbers)
        order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
        parts = [adversarial(network, x[part], y[part], settings, numbers[part])[0] for part in order.split(3)]
    assert torch.allclose(torch.cat(parts), whole[order], atol=1e-12)


def test_the_seed_changes_the_random_start_and_nothing_else_is_random():
    model = linear(4)
    x = images(5)
    y = model(x).argmax(1)
    one_small_step = {"eps": 0.1, "steps": 1, "step_size": 1e-6}
    runs = [attacked(model, x, y, Attack(**one_small_step, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    spread = (runs[0] - x).abs()
    assert spread.max() > 0.09  # the start fills the ball
    centred = attacked(model, x, y, Attack(**one_small_step, random_start=False))
    assert (centred - x).abs().max() <= 1.001e-6


def test_permuting_classes_and_labels_together_changes_no_image():
    model = linear(5)
    permutation = torch.tensor([3, 0, 4, 1, 2])
    permuted = Linear(model.weight.detach()[permutation])
    x = images(6)
    y = model(x).argmax(1)
    relabelled = permutation.argsort()[y]
    settings = Attack(eps=0.05, steps=5, step_size=0.02)
    assert torch.equal(attacked(model, x, y, settings), attacked(permuted, x, relabelled, settings))


def test_apgd_finds_a_loss_at_least_as_high_as_pgd_of_as_many_steps():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 64), nn.Tanh(), nn.Linear(64, 6)).double()
    x = images(64)
    y = model(x).argmax(1)
    losses = {}
    for name in ("pgd", "apgd"):
        made = attacked(model, x, y, Attack(name, eps=0.1, steps=20, step_size=0.025))
        losses[name] = nn.functional.cross_entropy(model(made), y).item()
    assert losses["apgd"] >= losses["pgd"] - 1e-3


def test_the_margin_attack_works_where_cross_entropy_has_no_gradient():
    model = linear(3, dtype=torch.float32)
    model.weight.data *= 1e4  # the softmax is exactly one-hot in float32
    x = images(30, dtype=torch.float32, low=0.3, high=0.7)
    y = model(x).argmax(1)
    with as_function(model) as network:
        _, masked = adversarial(network, x, y, Attack(eps=0.1, steps=2, step_size=0.05), torch.arange(30))
        made, seen = adversarial(
            network, x, y, Attack("pgd-margin", eps=0.3, steps=10, step_size=0.1), torch.arange(30)
        )
    assert masked.any()
    assert not seen.any()
    assert (model(made).argmax(1) != y).all()


def test_noise_is_a_random_sign_of_the_full_size_at_every_pixel():
    x = images(40, dtype=torch.float32, low=0.3, high=0.7)
    change = noisy(x, 0.1, 0, torch.arange(40)) - x
    assert torch.allclose(change.abs(), torch.full_like(x, 0.1), atol=1e-6)
    assert abs(float(change.sign().mean())) < 4 / np.sqrt(change.numel())


def test_no_image_at_all_is_no_error():
    model = linear(3)
    made = attacked(model, images(0), torch.zeros(0, dtype=torch.int64), Attack(eps=0.1, steps=2, step_size=0.1))
    assert made.shape == (0, *SHAPE)
