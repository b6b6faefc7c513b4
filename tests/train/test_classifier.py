from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.train.classifier import Classifier
from vtk_cli.train.sub import choose_sub

CPU = torch.device("cpu")


def vit() -> Any:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5, drop_rate=0.3
    )  # fmt: skip


def eva() -> Any:
    torch.manual_seed(0)
    return Eva(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, mlp_ratio=2, num_classes=5)


def swin() -> Any:
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=32, patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=5
    )


def classifier(network: nn.Module, points: int = 0, method: str = "mask", **options: Any) -> Classifier:
    sub = choose_sub(network, method, "auto", 0.5, 32, console=Console())
    return Classifier(network, points=points, sub=sub, image_size=32, **options)


def images(samples: int = 3) -> Tensor:
    return torch.randn(samples, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [vit, swin, lambda: timm.create_model("resnet10t", num_classes=5)])
@pytest.mark.parametrize("points", [0, 1])
def test_evaluation_is_that_of_the_network_alone(make: Any, points: int) -> None:
    network = make().eval()
    expected = network(images())
    model = classifier(network, points)
    assert torch.equal(model.eval()(images())[0], expected)


@pytest.mark.parametrize(("make", "extra"), [(vit, 0), (swin, 8)])
def test_what_is_exported_loads_strictly_and_a_mask_token_is_all_that_is_added(make: Any, extra: int) -> None:
    network = make()
    count = sum(weight.numel() for weight in network.parameters())
    model = classifier(network)
    assert sum(weight.numel() for weight in model.parameters()) == count + extra
    fresh = make()
    fresh.load_state_dict(classifier(network, points=2).inference_state(), strict=True)
    assert torch.equal(fresh.eval()(images()), model.eval()(images())[0])


def test_points_start_at_the_centre_of_the_image() -> None:
    _, points = classifier(vit(), points=4)(images())
    assert torch.equal(points, torch.full((3, 4, 2), 0.5))


def test_a_point_head_neither_draws_nor_changes_the_network() -> None:
    network = vit()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    state = torch.get_rng_state()
    model = classifier(network, points=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    for name, weight in model.inference_state().items():
        assert torch.equal(weight, before[name])


def test_in_training_a_point_head_leaves_the_logits_as_they_are() -> None:
    network = vit()
    torch.manual_seed(1)
    expected = network(images())
    torch.manual_seed(1)
    logits, _ = classifier(network, points=1)(images())
    assert torch.equal(logits, expected)


def test_the_point_head_reads_the_pooled_features_of_the_sub_model_too() -> None:
    model = classifier(vit(), points=2)
    network: Any = model.network.eval()
    with torch.no_grad():
        model.points.weight.normal_()
    draw = model.sub.draw(3, 0, 0, CPU)
    logits, points = model(images(), draw)
    pooled = network.forward_head(model.sub.features(network, images(), draw), pre_logits=True)
    torch.testing.assert_close(points, model.points(pooled).view(3, 2, 2))
    torch.testing.assert_close(logits, network.head(pooled))


def test_a_network_that_hides_its_features_is_refused() -> None:
    for network in (
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)),
        timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, depth=1),
    ):
        with pytest.raises(UserError, match="does not give the pooled features"):
            Classifier(network, points=1, image_size=32)


@pytest.mark.parametrize(
    ("make", "method"),
    [(vit, "mask"), (vit, "dropout"), (vit, "droppath"), (swin, "mask"), (eva, "mask")],
    ids=["tokens", "dropout", "droppath", "mask token", "slot"],
)
def test_a_compiled_classifier_computes_the_same_from_one_graph_a_branch(make: Any, method: str) -> None:
    torch.compiler.reset()
    model = classifier(make(), points=1, method=method).train()
    compiled, counter = copy.deepcopy(model), CompileCounter()
    compiled.compile(backend=counter)
    frames = []
    for step in range(3):
        for draw in (None, model.sub.draw(3, 0, step, CPU)):
            torch.manual_seed(step)
            expected = model(images(), draw)
            torch.manual_seed(step)
            found = compiled(images(), draw)
            torch.testing.assert_close(found, expected)
        frames.append(counter.frame_count)
    assert frames[0] == frames[-1]  # what is drawn next needs no other graph


def test_any_module_is_trained_without_points() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    model = classifier(network)
    assert model(images(), model.sub.draw(3, 0, 0, CPU))[0].shape == (3, 5)


def test_a_draw_needs_a_sub_model() -> None:
    model = classifier(vit())
    with pytest.raises(ValueError, match="no sub-model"):
        Classifier(vit(), image_size=32)(images(), model.sub.draw(3, 0, 0, CPU))


@pytest.mark.parametrize(("statistics", "moved"), [("shared", True), ("main", False)])
def test_the_sub_model_moves_the_running_statistics_only_where_it_may(statistics: str, moved: bool) -> None:
    model = classifier(timm.create_model("resnet10t", num_classes=5), sub_bn=statistics).train()
    norm: Any = model.network.bn1
    momentum, before = norm.momentum, norm.running_mean.clone()
    model(images(), model.sub.draw(3, 0, 0, CPU))
    assert torch.equal(norm.running_mean, before) is not moved
    assert norm.momentum == momentum
    model(images())
    assert not torch.equal(norm.running_mean, before)


def test_kept_statistics_cannot_go_with_gradient_checkpointing() -> None:
    network = timm.create_model("resnet10t")
    network.set_grad_checkpointing(True)
    with pytest.raises(UserError, match="--sub-bn main cannot go with gradient checkpointing"):
        classifier(network, sub_bn="main")


def test_mask_token_and_bias_of_the_point_head_are_not_decayed() -> None:
    assert classifier(swin(), points=1).no_weight_decay() == {"points.bias", "sub.mask_token"}
    names = {name for name, _ in classifier(swin(), points=1).named_parameters()}
    assert {"points.bias", "sub.mask_token"} <= names
    assert classifier(vit()).no_weight_decay() == set()
