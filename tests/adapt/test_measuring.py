"""What is measured of a network, against counting by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.adapt.tiny_domains import TARGET_DOMAIN, changed, learner
from vtk_cli.adapt.measuring import (
    NetworkOutputs,
    accuracy,
    doubted_labels,
    loss_rank_correlation,
    mean_class_accuracy,
    measure,
    measure_unsupervised,
    network_outputs,
    pool_outputs,
)

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(60, 4, generator=GENERATOR)
LABELS = torch.randint(4, (60,), generator=GENERATOR)


def outputs(logits: torch.Tensor = LOGITS, predicted: torch.Tensor | None = None) -> NetworkOutputs:
    return NetworkOutputs(logits, logits, torch.zeros(len(logits)) if predicted is None else predicted)


def test_accuracy_of_the_pool_is_the_mean_of_labelled_and_unlabelled_by_their_numbers() -> None:
    unlabelled = torch.arange(60) >= 13
    found = measure(outputs(), LABELS, unlabelled)
    labelled = accuracy(LOGITS[:13], LABELS[:13])
    assert labelled is not None
    assert found.acc_pool_unlabelled is not None
    assert found.acc_pool_all == pytest.approx((13 * labelled + 47 * found.acc_pool_unlabelled) / 60)
    assert found.acc_test is None


def test_an_exhausted_pool_has_no_accuracy_of_unlabelled_images() -> None:
    found = measure(outputs(), LABELS, torch.zeros(60, dtype=torch.bool), test=(outputs(), LABELS))
    assert found.acc_pool_unlabelled is None
    assert found.class_acc_pool_unlabelled is None
    assert found.spearman is None
    assert found.acc_test == found.acc_pool_all


def test_mean_class_accuracy_counts_every_class_that_occurs_once() -> None:
    logits = torch.eye(3)[torch.tensor([0, 0, 0, 0, 1])]
    labels = torch.tensor([0, 0, 0, 1, 1])
    assert mean_class_accuracy(logits, labels) == pytest.approx(75.0)
    assert accuracy(logits, labels) == pytest.approx(80.0)


def test_a_predictor_that_knows_the_losses_correlates_fully_and_its_negative_the_other_way() -> None:
    true = F.cross_entropy(LOGITS, LABELS, reduction="none")
    assert loss_rank_correlation(true.exp(), LOGITS, LABELS) == pytest.approx(1.0)
    assert loss_rank_correlation(-true, LOGITS, LABELS) == pytest.approx(-1.0)
    assert loss_rank_correlation(torch.ones(60), LOGITS, LABELS) is None


def test_accuracy_of_pseudo_labels_is_of_the_unlabelled_images_alone() -> None:
    unlabelled = torch.arange(60) % 2 == 0
    right = LABELS[unlabelled].clone()
    right[:3] = (right[:3] + 1) % 4
    found = measure(outputs(), LABELS, unlabelled, pseudo_labels=right)
    assert found.pseudo_label_acc == pytest.approx(100 * 27 / 30)


def test_doubted_labels_are_those_the_network_finds_least_likely() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, 1.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 1])
    assert doubted_labels(logits, labels, 5) == [1, 3, 2]
    assert doubted_labels(logits, labels, 1) == [1]


def test_without_labels_entropy_and_histogram_remain() -> None:
    found = measure_unsupervised(outputs(torch.zeros(5, 4)), 0.5)
    assert found.mean_entropy == pytest.approx(torch.tensor(4.0).log().item())
    assert found.histogram == (5, 0, 0, 0)
    assert found.agreement == 0.5
    assert measure_unsupervised(outputs(torch.zeros(0, 4))).mean_entropy is None


def test_outputs_do_not_depend_on_the_batch_and_leave_every_mode_as_it_was() -> None:
    one = learner()
    one.parts.train()
    rows = (5, 1, 30, 2, 2)
    large = network_outputs(one.network, TARGET_DOMAIN.images, rows, batch_size=16, predictor=one.parts.predictor)
    small = network_outputs(one.network, TARGET_DOMAIN.images, rows, batch_size=2, predictor=one.parts.predictor)
    for name in ("logits", "embeddings", "predicted_losses"):
        assert torch.allclose(getattr(large, name), getattr(small, name), atol=1e-5)
    assert torch.allclose(large.logits[3], large.logits[4], atol=1e-6)
    assert one.network.training
    assert one.parts.predictor.training


def test_queries_get_what_classifies_by_sample_id() -> None:
    one = learner(changed(adversarial=1.0))
    ids = tuple(f"target/{row:03d}" for row in (7, 3, 9))
    found = pool_outputs(one.parts, TARGET_DOMAIN.images, (7, 3, 9), ids, batch_size=2)
    assert found.ids == ids
    assert found.classifier is not None
    assert found.domain_logits is not None
    assert found.predicted_losses is not None
    again = found.embeddings @ found.classifier.T + one.network.head.bias.detach()
    assert torch.allclose(again, found.logits, atol=1e-5)


def test_no_image_gives_empty_outputs() -> None:
    one = learner(changed(adversarial=1.0))
    found = network_outputs(one.network, TARGET_DOMAIN.images, (), batch_size=4, discriminator=one.parts.discriminator)
    assert found.logits.shape == (0, 3)
    assert found.target_logits is not None
    assert len(found.target_logits) == 0
