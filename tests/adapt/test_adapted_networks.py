"""The network, its batch normalisation for two domains, and the loss predictor."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

from vtk_cli.adapt.backbones import DigitsBackbone, TimmBackbone, stage_indices
from vtk_cli.adapt.domain_norm import (
    SOURCE,
    TARGET,
    DomainBatchNorm,
    copy_source_norm,
    norm_layers,
    one_domain,
    set_domain,
    with_domain_norm,
)
from vtk_cli.adapt.loss_prediction import LossPredictor, predictor_for, usual_width
from vtk_cli.adapt.networks import Answer, DomainNetwork, build_network
from vtk_cli.console import Console
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)


def small(name: str = "digits-cnn", *, domain_norm: bool = True, size: int | None = None) -> DomainNetwork:
    torch.manual_seed(0)
    return build_network(name, classes=5, console=QUIET, domain_norm=domain_norm, size=size)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_freshly_converted_resnet_answers_as_before_under_both_domains() -> None:
    torch.manual_seed(0)
    plain = torchvision.models.resnet18(num_classes=4).eval()
    converted = with_domain_norm(copy.deepcopy(plain))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain(images)
        for domain in (SOURCE, TARGET):
            set_domain(converted, domain)
            assert (converted(images) - expected).abs().max() < 1e-5
    assert sum(isinstance(part, DomainBatchNorm) for part in converted.modules()) == 20


def test_a_batch_of_both_domains_is_refused() -> None:
    network = small()
    with pytest.raises(ValueError, match="one domain"):
        network(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert one_domain(torch.tensor([1, 1, 1])) == TARGET
    with pytest.raises(ValueError, match="no domain 2"):
        one_domain(2)


def test_training_on_one_domain_leaves_the_statistics_of_the_other() -> None:
    network = small().train()
    before = {domain: [layer.running_mean.clone() for layer in norm_layers(network, domain)] for domain in (0, 1)}
    network(torch.randn(8, 3, 32, 32), TARGET)
    after = {domain: [layer.running_mean for layer in norm_layers(network, domain)] for domain in (0, 1)}
    assert all(torch.equal(old, new) for old, new in zip(before[0], after[0], strict=True))
    assert not any(torch.equal(old, new) for old, new in zip(before[1], after[1], strict=True))


def test_copying_gives_the_target_the_weights_and_statistics_of_the_source() -> None:
    network = small().train()
    network(3 * torch.randn(8, 3, 32, 32) + 1, SOURCE)
    network.eval()
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(network(images, SOURCE).logits, network(images, TARGET).logits)
    copy_source_norm(network)
    assert torch.equal(network(images, SOURCE).logits, network(images, TARGET).logits)


def test_networks_without_domains_share_their_normalisation() -> None:
    network = small(domain_norm=False)
    assert norm_layers(network, SOURCE) == norm_layers(network, TARGET)
    assert len(norm_layers(network, SOURCE)) == 4
    assert len(norm_layers(small(), TARGET)) == 4


def test_the_classifier_is_weight_normed_and_a_frozen_one_stays_in_eval_mode() -> None:
    network = small()
    embedding = torch.randn(6, 64)
    g, v = network.head.parametrizations.weight.original0, network.head.parametrizations.weight.original1
    expected = embedding @ (g * v / v.norm(dim=1, keepdim=True)).T + network.head.bias
    assert torch.allclose(network.head(embedding), expected, atol=1e-6)
    network.freeze_head()
    network.train()
    assert network.training
    assert not network.head.training
    assert not any(parameter.requires_grad for parameter in network.head.parameters())


@pytest.mark.parametrize(
    ("channels", "width", "count"),
    [((256, 512, 1024, 2048), 512, 1_970_177), ((64, 128, 256, 512), 128, 123_905), ((20, 50), 50, 3_701)],
)
def test_the_loss_predictor_has_as_many_parameters_as_published(
    channels: tuple[int, ...], width: int, count: int
) -> None:
    assert parameters(LossPredictor(channels, width)) == count


def test_widths_are_those_of_the_networks_they_were_published_for() -> None:
    assert usual_width((256, 512, 1024, 2048)) == 512
    assert usual_width((64, 128, 256, 512)) == 128
    assert usual_width((16, 32, 64)) == 32


@pytest.mark.parametrize("side", [32, 96, 224])
def test_the_loss_predictor_takes_images_of_any_size(side: int) -> None:
    network = small("resnet18", size=side).eval()
    predictor = predictor_for(network)
    with torch.no_grad():
        answer = network(torch.randn(2, 3, side, side), TARGET)
    assert [stage.shape[-1] for stage in answer.stages] == [side // 4, side // 8, side // 16, side // 32]
    assert predictor(answer).shape == (2,)


@pytest.mark.parametrize("inputs", ["stages", "stages+embed"])
def test_no_gradient_of_the_loss_predictor_reaches_the_network(inputs: str) -> None:
    network = small().train()
    predictor = predictor_for(network, inputs)  # type: ignore[arg-type]
    predictor(network(torch.randn(4, 3, 32, 32), TARGET)).sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.grad is not None for parameter in predictor.parameters())


def test_the_faithful_loss_predictor_sees_the_stages_alone() -> None:
    stages = (torch.randn(3, 4, 2, 2), torch.randn(3, 8, 1, 1))
    one = Answer(torch.randn(3, 5), torch.randn(3, 6), stages)
    other = Answer(torch.randn(3, 5), torch.randn(3, 6), stages)
    faithful, further = LossPredictor((4, 8), 16), LossPredictor((4, 8), 16, (6, 5))
    assert torch.equal(faithful(one), faithful(other))
    assert not torch.equal(further(one), further(other))


def test_stages_are_the_last_blocks_of_four_resolutions_or_evenly_spaced() -> None:
    assert stage_indices([2, 4, 8, 16, 32]) == (1, 2, 3, 4)
    assert stage_indices([4, 4, 8, 16, 16, 32]) == (1, 2, 4, 5)
    assert stage_indices([16] * 12) == (2, 5, 8, 11)
    assert stage_indices([16, 16]) == (0, 1)


@pytest.mark.parametrize(
    ("name", "arguments", "channels"),
    [
        ("resnet18", {}, (64, 128, 256, 512)),
        ("convnext_atto", {}, (40, 80, 160, 320)),
        ("mobilenetv3_small_050", {}, (8, 16, 24, 288)),
        ("vit_tiny_patch16_224", {"depth": 4, "img_size": 32}, (192, 192, 192, 192)),
    ],
)
def test_networks_of_every_kind_give_a_feature_and_their_stages(
    name: str, arguments: dict[str, int], channels: tuple[int, ...]
) -> None:
    network = build_network(name, classes=3, console=QUIET, model_args=arguments, size=32)
    answer = network.eval()(torch.randn(2, 3, 32, 32), TARGET)
    assert answer.logits.shape == (2, 3)
    assert answer.embedding.shape == (2, 256)
    assert tuple(stage.shape[1] for stage in answer.stages) == network.stage_channels == channels
    assert all(stage.ndim == 4 for stage in answer.stages)


def test_the_feature_is_what_the_networks_own_classifier_would_see() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("resnet18", num_classes=0).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain(images)
        feature, _ = TimmBackbone(plain, "resnet18", 64).eval()(images)
    assert torch.equal(feature, expected)


def test_the_digits_network_has_the_published_shape() -> None:
    feature, stages = DigitsBackbone()(torch.randn(2, 3, 32, 32))
    assert feature.shape == (2, 1024)
    assert [tuple(stage.shape[1:]) for stage in stages] == [(16, 16, 16), (32, 8, 8), (64, 4, 4)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [("tv:resnet18", "only timm's networks"), ("resnet51", "resnet51"), ("py:os:getcwd", "only timm's networks")],
)
def test_networks_that_cannot_be_adapted_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_network(spec, classes=3, console=QUIET)


def test_one_class_and_odd_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="1 class is nothing"):
        build_network("digits-cnn", classes=1, console=QUIET)
    with pytest.raises(UserError, match="multiple of 8"):
        build_network("digits-cnn", classes=3, console=QUIET, size=30)
