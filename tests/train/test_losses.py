from __future__ import annotations

import math

import pytest
import torch

from vtk_cli.train.losses import binary_cross_entropy, criterion, point_loss, relaxed_target, soft_cross_entropy

MAIN = torch.tensor([[2.0, 0.0, -1.0]])
SUB = torch.tensor([[0.5, 0.5, 0.0]])
LABEL = torch.tensor([[1.0, 0.0, 0.0]])


def test_soft_cross_entropy_of_a_relaxed_target_has_its_closed_form() -> None:
    sub = SUB.clone().requires_grad_()
    taught = relaxed_target(MAIN, "ce")
    main_loss, sub_loss = soft_cross_entropy(MAIN, LABEL), soft_cross_entropy(sub, taught)
    (gradient,) = torch.autograd.grad(sub_loss, sub)
    torch.testing.assert_close(taught, torch.tensor([[0.8438, 0.1142, 0.0420]]), atol=5e-5, rtol=0)
    assert main_loss.item() == pytest.approx(0.169846, abs=1e-6)
    assert sub_loss.item() == pytest.approx(0.979025, abs=1e-6)
    assert (main_loss + sub_loss).item() / 2 == pytest.approx(0.574436, abs=1e-6)
    torch.testing.assert_close(gradient, torch.tensor([[-0.4601, 0.2695, 0.1907]]), atol=5e-5, rtol=0)


def test_a_sub_model_that_agrees_has_the_entropy_of_its_target_as_loss_and_no_gradient() -> None:
    sub = MAIN.clone().requires_grad_()
    loss = soft_cross_entropy(sub, relaxed_target(MAIN, "ce"))
    (gradient,) = torch.autograd.grad(loss, sub)
    probability = MAIN.softmax(dim=1)
    entropy = -(probability * probability.log()).sum()
    assert loss.item() == pytest.approx(entropy.item(), abs=1e-6)
    assert loss.item() == pytest.approx(0.524267, abs=1e-6)
    assert gradient.abs().max() < 1e-7


def test_binary_cross_entropy_of_a_relaxed_target_has_its_closed_form() -> None:
    sub = SUB.clone().requires_grad_()
    taught = relaxed_target(MAIN, "bce")
    sub_loss = binary_cross_entropy(sub, taught)
    (gradient,) = torch.autograd.grad(sub_loss, sub)
    torch.testing.assert_close(taught, torch.tensor([[0.8808, 0.5, 0.2689]]), atol=5e-5, rtol=0)
    assert binary_cross_entropy(MAIN, LABEL).item() == pytest.approx(0.377779, abs=1e-6)
    assert sub_loss.item() == pytest.approx(0.650300, abs=1e-6)
    torch.testing.assert_close(gradient, torch.tensor([[-0.0861, 0.0408, 0.0770]]), atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_the_relaxed_target_lets_no_gradient_through(kind: str) -> None:
    assert not relaxed_target(MAIN.clone().requires_grad_(), kind).requires_grad


@pytest.mark.parametrize("kind", ["ce", "bce"])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_losses_of_low_precision_logits_are_made_in_float32(kind: str, precision: torch.dtype) -> None:
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).mul(10).to(precision)
    with torch.autocast("cpu", torch.bfloat16):
        taught = relaxed_target(logits, kind)
        loss = criterion(logits, taught, kind)
    assert taught.dtype == loss.dtype == torch.float32
    exact = logits.double()
    expected = criterion(exact, exact.softmax(1) if kind == "ce" else exact.sigmoid(), kind)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_point_loss_has_its_closed_form() -> None:
    predicted, points = torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[0.3, 0.9]]])
    assert point_loss(predicted, points, torch.ones(1, 1)).item() == pytest.approx(0.02 + 0.08, abs=1e-7)


def test_point_loss_is_linear_beyond_beta() -> None:
    predicted, points = torch.tensor([[[0.9, 0.5]]]), torch.tensor([[[0.1, 0.5]]])
    assert point_loss(predicted, points, torch.ones(1, 1), beta=0.2).item() == pytest.approx(0.8 - 0.1, abs=1e-6)


def test_point_loss_without_points_is_zero_with_a_finite_zero_gradient() -> None:
    predicted = torch.rand(3, 2, 2).requires_grad_()
    loss = point_loss(predicted, torch.full((3, 2, 2), 0.5), torch.zeros(3, 2))
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(predicted))


def test_absent_points_leave_the_point_loss_as_it_is() -> None:
    generator = torch.Generator().manual_seed(1)
    predicted, points = torch.rand(4, 1, 2, generator=generator), torch.rand(4, 1, 2, generator=generator)
    present = torch.tensor([[True], [False], [True], [False]])
    twice = torch.cat((predicted, predicted[~present[:, 0]])), torch.cat((points, points[~present[:, 0]]))
    more = torch.cat((present, torch.zeros(2, 1, dtype=torch.bool)))
    assert torch.equal(point_loss(predicted, points, present), point_loss(*twice, more))


def test_the_share_of_a_mixture_scales_a_samples_term_and_not_the_count() -> None:
    generator = torch.Generator().manual_seed(2)
    predicted, points = torch.rand(6, 1, 2, generator=generator), torch.rand(6, 1, 2, generator=generator)
    present = torch.ones(6, 1)
    whole, part = (point_loss(predicted, points, present, share=torch.full((6,), share)) for share in (1.0, 0.3))
    assert part.item() == pytest.approx(0.3 * whole.item(), rel=1e-6)
    assert math.isclose(whole.item(), point_loss(predicted, points, present).item(), rel_tol=1e-6)
