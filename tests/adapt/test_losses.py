"""The losses against closed forms, limits and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from vtk_cli.adapt.losses import (
    adversarial_loss,
    class_prior,
    discriminator_loss,
    information_maximisation,
    kept_pseudo_labels,
    mean_entropy,
    minimum_class_confusion,
    pseudo_label_loss,
    ranking_cross_entropy,
    ranking_loss,
)
from vtk_cli.adapt.method import Method, learning_rate

PREDICTED, TRUE = torch.tensor([1.0, 0.0, 2.0, 0.5]), torch.tensor([3.0, 1.0, 2.0, 0.0])


def test_ranking_loss_and_its_gradient_are_those_worked_out_by_hand() -> None:
    predicted, true = PREDICTED.clone().requires_grad_(), TRUE.clone().requires_grad_()
    loss = ranking_loss(predicted, true)
    loss.backward()
    assert loss.item() == 0.25
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [-0.5, 0.0, 0.0, 0.5]
    assert true.grad is None


def test_of_equal_losses_the_second_of_a_pair_counts_as_the_larger() -> None:
    assert ranking_loss(torch.tensor([2.0, 0.0]), torch.ones(2)).item() == 3.0


@pytest.mark.parametrize("extra", [-50.0, 50.0])
def test_an_odd_batch_loses_its_last_image(extra: float) -> None:
    odd = ranking_loss(torch.cat((PREDICTED, torch.tensor([7.0]))), torch.cat((TRUE, torch.tensor([extra]))))
    assert odd.item() == ranking_loss(PREDICTED, TRUE).item()
    cross = ranking_cross_entropy(torch.cat((PREDICTED, torch.tensor([7.0]))), torch.cat((TRUE, torch.tensor([extra]))))
    assert cross.item() == ranking_cross_entropy(PREDICTED, TRUE).item()


def test_a_single_image_has_no_ranking_loss_and_still_a_gradient() -> None:
    predicted = torch.ones(1, requires_grad=True)
    loss = ranking_loss(predicted, torch.ones(1))
    loss.backward()
    assert loss.item() == 0.0


def test_ranking_knows_neither_the_level_of_predictions_nor_the_scale_of_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, true = torch.randn(32, generator=generator), torch.rand(32, generator=generator)
    value = ranking_loss(predicted, true)
    assert ranking_loss(predicted + 5.0, true) == pytest.approx(value.item(), abs=1e-5)
    assert ranking_loss(predicted, (3 * true).exp()) == value
    assert ranking_loss(predicted.flip(0), true.flip(0)) == pytest.approx(value.item(), abs=1e-6)


def test_ranking_loss_is_zero_for_pairs_apart_by_the_margin_and_the_margin_for_a_constant() -> None:
    true = torch.arange(8.0)
    assert ranking_loss(1.0 * true, true).item() == 0.0
    assert ranking_loss(torch.zeros(8), true, margin=1.0).item() == 1.0
    assert ranking_loss(torch.zeros(8), true, margin=0.3).item() == pytest.approx(0.3)


def test_ranking_by_cross_entropy_is_log_2_for_a_constant() -> None:
    assert ranking_cross_entropy(torch.zeros(6), torch.arange(6.0)).item() == pytest.approx(math.log(2))


def test_information_maximisation_takes_its_closed_forms() -> None:
    sure = 1e4 * torch.eye(10)
    assert abs(information_maximisation(torch.zeros(20, 10)).item()) < 1e-4
    assert information_maximisation(sure).item() == pytest.approx(-2.3025, abs=1e-4)
    assert information_maximisation(sure[:1].repeat(8, 1)).item() == pytest.approx(0.0, abs=1e-4)
    chances = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    assert information_maximisation(chances.log()).item() == pytest.approx(-0.2229, abs=1e-4)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_information_maximisation_lies_between_minus_log_c_and_zero(scale: float) -> None:
    logits = scale * torch.randn(64, 7, generator=torch.Generator().manual_seed(1))
    assert -math.log(7) - 1e-3 <= information_maximisation(logits).item() <= 1e-3


def test_a_uniform_prior_is_no_prior_and_another_costs_its_divergence() -> None:
    logits = torch.randn(64, 5, generator=torch.Generator().manual_seed(2))
    free = information_maximisation(logits)
    assert information_maximisation(logits, torch.full((5,), 0.2)).item() == pytest.approx(free.item(), abs=1e-6)
    prior = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1])
    mean = logits.softmax(1).mean(0)
    divergence = F.kl_div(prior.log(), mean, reduction="sum") - math.log(5)
    found = information_maximisation(logits, prior) - mean_entropy(logits)
    assert found.item() == pytest.approx(divergence.item(), abs=1e-4)


def test_gradient_flows_through_both_entropies() -> None:
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float32, requires_grad=True)
    whole = torch.autograd.grad(information_maximisation(logits), logits)[0]
    first = torch.autograd.grad(mean_entropy(logits), logits)[0]
    assert (whole - first).abs().max() > 1e-3


def test_the_prior_of_labels_counts_every_class_once_more() -> None:
    assert class_prior(torch.tensor([0, 0, 2]), 4).tolist() == pytest.approx([3 / 7, 1 / 7, 2 / 7, 1 / 7])


def test_half_of_every_predicted_class_is_kept_those_with_the_lowest_predicted_losses() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    predicted = torch.tensor([3.0, 1.0, 2.0, 5.0, 5.0, 0.4, 0.3, 0.2, 0.1])
    kept = kept_pseudo_labels(labels, predicted, 0.5)
    assert kept.nonzero().squeeze(1).tolist() == [1, 2, 3, 7, 8]
    generator = torch.Generator().manual_seed(0)
    many = torch.randint(6, (500,), generator=generator)
    counts = torch.bincount(many, minlength=6)
    chosen = many[kept_pseudo_labels(many, torch.rand(500, generator=generator), 0.07)]
    assert torch.bincount(chosen, minlength=6).tolist() == [math.ceil(count * 7 / 100) for count in counts.tolist()]


def test_keeping_all_pseudo_labels_is_the_plain_mean_bit_for_bit() -> None:
    losses = torch.rand(61, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(61) % 4
    kept = kept_pseudo_labels(labels, losses, 1.0)
    assert torch.equal(pseudo_label_loss(losses, kept), losses.mean())


def test_no_kept_pseudo_label_costs_nothing() -> None:
    losses = torch.rand(4, requires_grad=True)
    loss = pseudo_label_loss(losses, torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0


def test_class_confusion_is_zero_of_sure_and_all_but_one_cth_of_uniform_predictions() -> None:
    assert minimum_class_confusion(1e4 * torch.eye(5)).item() == pytest.approx(0.0, abs=1e-6)
    assert minimum_class_confusion(torch.zeros(10, 5)).item() == pytest.approx(0.8, abs=1e-6)


def test_a_discriminator_that_knows_nothing_costs_log_2_whatever_the_sizes() -> None:
    assert discriminator_loss(torch.zeros(3), torch.zeros(9)).item() == pytest.approx(math.log(2))
    assert adversarial_loss(torch.zeros(4)).item() == pytest.approx(math.log(2))
    assert discriminator_loss(torch.full((3,), -30.0), torch.full((5,), 30.0)).item() < 1e-6
    assert adversarial_loss(torch.full((4,), 30.0)).item() == pytest.approx(30.0)


def test_the_schedule_falls_as_published() -> None:
    factors = [learning_rate(1.0, progress) for progress in (0.0, 0.5, 1.0)]
    assert factors == pytest.approx([1.0, 0.26085, 0.16556], abs=1e-5)


def test_stages_are_as_long_as_the_published_rules_say() -> None:
    method = Method(labelled_max_passes=10**6)
    assert method.labelled_length(1, 25, 1) == 52
    assert method.labelled_length(5, 25, 5) == 180
    assert method.labelled_length(9, 554, 1) == 2 * 563
    assert Method().labelled_length(1, 25, 1) == 40  # never more than 40 passes
    assert method.unlabelled_length(38, 10, 1) == 76
    assert method.unlabelled_length(3, 10, 0) == 20
    assert Method(passes=4.0).unlabelled_length(3, 10, 1) == 40  # Office-31, D and W
    assert Method(passes=4.0).unlabelled_length(3, 10, 0) == 20
    assert method.refresh_interval(76, 2427) == 5
    assert method.refresh_interval(7, 2427) == 1  # and not 0
    assert method.refresh_interval(1730, 55_388) == 432
