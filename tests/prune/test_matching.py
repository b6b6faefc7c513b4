from __future__ import annotations

import pytest
import torch

from vtk_cli.prune.keeping import FeatureNorm, MomentAverage
from vtk_cli.prune.matching import MomentLoss, MovingAverage, gaps
from vtk_cli.prune.moments import Moments, batch_moments

KINDS: list[MomentAverage] = ["ama", "ema", "none"]
RATES = {"ama": 1e-2, "ema": 0.9, "none": 0.0}


def targets() -> Moments:
    generator = torch.Generator().manual_seed(0)
    means = tuple(torch.randn(size, generator=generator) for size in (5, 3))
    variances = tuple(torch.rand(size, generator=generator) + 0.5 for size in (5, 3))
    return Moments(means, variances, 100)


def features(seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, size, generator=generator).requires_grad_() for size in (5, 3)]


def average(kind: MomentAverage) -> MovingAverage:
    return MovingAverage(kind, RATES[kind], [5, 3])


@pytest.mark.parametrize("norm", ["layer", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_fakes_with_the_targets_moments_give_no_gradient(kind: MomentAverage, norm: FeatureNorm) -> None:
    fakes = features()
    with torch.no_grad():
        means, variances = batch_moments(fakes)
    loss, v = MomentLoss(Moments(tuple(means), tuple(variances), 6), norm), average(kind)
    for _ in range(3):
        matched = loss(fakes, v)
        matched.loss.backward()
    assert all((fake.grad == 0).all() for fake in fakes)
    assert all((value == 0).all() for name, value in v.named_buffers() if name != "step")
    assert gaps(matched)["mean_gap"] == 0


@pytest.mark.parametrize("kind", ["ama", "ema"])
def test_the_gradient_by_the_fakes_moments_is_minus_v(kind: MomentAverage) -> None:
    loss, v, fakes = MomentLoss(targets(), "none"), average(kind), features()
    loss(features(2), v)
    loss(fakes, v).loss.backward()
    used = [v.get_buffer(f"v{number}") / (1 - 0.9**2 if kind == "ema" else 1) for number in range(4)]
    again = features()
    means, variances = batch_moments(again)
    by_hand = -sum((a * b).sum() for a, b in zip(used, [*means, *variances], strict=True))
    by_hand.backward()
    for fake, other in zip(fakes, again, strict=True):
        torch.testing.assert_close(fake.grad, other.grad)


def test_the_loss_without_an_average_is_the_two_mean_squares() -> None:
    loss, fakes, again = MomentLoss(targets(), "none"), features(), features()
    matched = loss(fakes, average("none"))
    matched.loss.backward()
    means, variances = batch_moments(again)
    d_mu = torch.cat(targets().means) - torch.cat(means)
    d_var = torch.cat(targets().variances) - torch.cat(variances)
    expected = d_mu.square().mean() + d_var.square().mean()
    expected.backward()
    torch.testing.assert_close(matched.loss, expected)
    for fake, other in zip(fakes, again, strict=True):
        torch.testing.assert_close(fake.grad, other.grad)


def test_nothing_but_the_fakes_gets_a_gradient() -> None:
    v = average("ema")
    MomentLoss(targets(), "layer")(features(), v).loss.backward()
    assert not any(value.requires_grad for value in v.buffers())
    assert not list(v.parameters())


def test_the_first_step_of_ama_has_the_size_of_its_rate() -> None:
    d = torch.tensor([3.0, -0.2, 1e-3])
    v = MovingAverage("ama", 1e-5, [3])
    first = v.update([d, d])
    torch.testing.assert_close(first[0], 1e-5 * d.sign(), rtol=1e-3, atol=0)


def test_amas_steps_do_not_shrink_with_the_number_of_features() -> None:
    average = MovingAverage("ama", 0.01, [100_000])
    v, _ = average.update([torch.full((100_000,), 1e-4), torch.zeros(100_000)])
    torch.testing.assert_close(v, torch.full_like(v, 0.01), rtol=1e-3, atol=0)


def test_ama_is_adam_on_the_sum_of_squares() -> None:
    torch.manual_seed(0)
    v, by_hand = MovingAverage("ama", 1e-2, [4]), torch.nn.Parameter(torch.zeros(4))
    adam = torch.optim.Adam([by_hand], lr=1e-2, betas=(0.5, 0.999), eps=1e-8)
    for _ in range(20):
        d = torch.randn(4)
        used = v.update([d, torch.zeros(4)])[0]
        adam.zero_grad()
        (by_hand - d).square().sum().backward()
        adam.step()
        torch.testing.assert_close(used, by_hand.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rate", [0.5, 0.97, 0.9999])
def test_an_average_of_a_constant_is_that_constant_from_the_first_step(rate: float) -> None:
    v, d = MovingAverage("ema", rate, [3]), torch.tensor([1.0, -2.0, 0.1])
    for _ in range(10):
        torch.testing.assert_close(v.update([d, d])[0], d, rtol=1e-4, atol=0)


def test_an_average_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    one, other = MovingAverage("ama", 1e-2, [4]), MovingAverage("ama", 1e-2, [4])
    one.update([torch.randn(4), torch.randn(4)])
    other.load_state_dict(one.state_dict())
    d = [torch.randn(4), torch.randn(4)]
    assert all(torch.equal(a, b) for a, b in zip(one.update(d), other.update(d), strict=True))


def test_normed_layers_weigh_the_same_whatever_their_size_and_scale() -> None:
    torch.manual_seed(0)
    real = [torch.randn(50, 4), torch.randn(50, 6)]
    fake = [torch.randn(8, 4), torch.randn(8, 6)]

    def value(scale: float, copies: int) -> float:
        r = [real[0], (real[1] * scale).repeat(1, copies)]
        f = [fake[0], (fake[1] * scale).repeat(1, copies)]
        found = Moments(tuple(x.mean(dim=0) for x in r), tuple(x.var(dim=0) for x in r), 50)
        loss = MomentLoss(found, "layer")
        return loss(f, MovingAverage("ema", 0.9, loss.sizes)).loss.item()

    assert value(100.0, 5) == pytest.approx(value(1.0, 1), rel=1e-4)


def test_a_feature_that_is_dead_on_real_images_does_not_explode() -> None:
    means, variances = torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, 0.0])
    loss = MomentLoss(Moments((means,), (variances,), 10), "layer")
    assert loss([torch.randn(8, 4) * 0.1], MovingAverage("none", 0.0, [4])).loss < 10
