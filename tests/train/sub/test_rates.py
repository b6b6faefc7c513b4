from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.train.sub import SubDraw, SubModel, choose_sub


def vit(**arguments: Any) -> Any:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, mlp_ratio=2, num_classes=5, **arguments
    ).train()


def sub_of(network: nn.Module, method: str, ratio: float = 0.5) -> SubModel:
    return choose_sub(network, method, "auto", ratio, 32, console=Console())


def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def rates(network: nn.Module) -> list[float]:
    modules = [module for module in network.modules() if isinstance(module, (nn.Dropout, DropPath))]
    return [module.p if isinstance(module, nn.Dropout) else module.drop_prob for module in modules]


def inside(network: nn.Module, sub: SubModel, ratio: float) -> dict[str, float]:
    """The rates that the network has while the sub-model runs, by name."""
    with sub.applied(network, SubDraw(ratio, None)):
        named = [(name, module) for name, module in network.named_modules()]
        drops = {name: module.p for name, module in named if isinstance(module, nn.Dropout)}
        return drops | {name: module.drop_prob for name, module in named if isinstance(module, DropPath)}


def test_dropout_is_raised_after_the_attention_and_in_the_mlp_alone() -> None:
    network = vit(attn_drop_rate=0.1, pos_drop_rate=0.2, drop_rate=0.3, proj_drop_rate=0.05)
    sub = sub_of(network, "dropout")
    raised = inside(network, sub, 0.4)
    assert {name for name, rate in raised.items() if rate == 0.4} == {
        f"blocks.{block}.{name}" for block in range(3) for name in ("attn.proj_drop", "mlp.drop1", "mlp.drop2")
    }
    assert raised["blocks.0.attn.attn_drop"] == 0.1
    assert raised["pos_drop"] == 0.2
    assert raised["head_drop"] == 0.3
    assert network.blocks[0].attn.proj_drop.p == 0.05


def test_every_branch_has_the_same_drop_path_whatever_the_recipe() -> None:
    network = vit(drop_path_rate=0.3)
    before = rates(network)
    sub = sub_of(network, "droppath")
    raised = inside(network, sub, 0.5)
    assert [raised[f"blocks.{block}.drop_path{path}"] for block in range(3) for path in (1, 2)] == [0.5] * 6
    assert [rate for rate in rates(network) if rate] == [rate for rate in before if rate]


def test_with_every_branch_dropped_only_embedding_norm_and_head_remain() -> None:
    network = vit(global_pool="avg", fc_norm=False)
    sub = sub_of(network, "droppath", 0.999999)
    logits = sub.logits(network, images(), SubDraw(0.999999, None))
    embedding = network.patch_embed(images())
    tokens = torch.cat((network.cls_token.expand(4, -1, -1), embedding), dim=1) + network.pos_embed
    torch.testing.assert_close(logits, network.forward_head(network.norm(tokens)))


@pytest.mark.parametrize("method", ["dropout", "droppath"])
def test_at_rate_0_the_sub_model_is_the_model(method: str) -> None:
    network = vit()
    expected = network(images())
    sub = sub_of(network, method)
    assert torch.equal(network(images()), expected)
    assert torch.equal(sub.logits(network, images(), SubDraw(0.0, None)), expected)
    assert not torch.equal(sub.logits(network, images(), SubDraw(0.5, None)), expected)


@pytest.mark.parametrize("method", ["dropout", "droppath"])
def test_rates_are_restored_also_after_an_error(method: str) -> None:
    network = vit(proj_drop_rate=0.1, drop_path_rate=0.2)
    sub = sub_of(network, method)
    before = rates(network)
    sub.logits(network, images(), SubDraw(0.5, None))
    assert rates(network) == before
    with pytest.raises((AssertionError, RuntimeError)):
        sub.logits(network, images()[:, :, :17], SubDraw(0.5, None))
    assert rates(network) == before


@pytest.mark.parametrize("method", ["dropout", "droppath"])
def test_evaluation_drops_nothing(method: str) -> None:
    network = vit().eval()
    expected = network(images())
    sub = sub_of(network, method)
    assert torch.equal(sub.logits(network, images(), SubDraw(0.9, None)), expected)


def test_a_resnet_without_drop_path_gets_one_a_block() -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=3, zero_init_last=False).eval()
    state, expected = set(network.state_dict()), network(images())
    sub = sub_of(network, "droppath", 0.5)
    assert sum(isinstance(module, DropPath) for module in network.modules()) == 8
    assert torch.equal(network(images()), expected)
    assert set(network.state_dict()) == state
    network.train()
    plain, dropped = network(images()), sub.logits(network, images(), SubDraw(0.5, None))
    assert not torch.equal(plain, dropped)


@pytest.mark.parametrize(
    ("name", "method"), [("vgg11", "droppath"), ("resnet10t", "dropout")], ids=["droppath", "dropout"]
)
def test_a_network_with_nothing_to_drop_is_refused(name: str, method: str) -> None:
    with pytest.raises(UserError, match=rf"--sub {method}: a \w+ has no drop"):
        sub_of(timm.create_model(name, num_classes=2), method)


@pytest.mark.parametrize("method", ["dropout", "droppath"])
def test_gradient_checkpointing_is_refused_for_it_would_recompute_at_other_rates(method: str) -> None:
    network = vit()
    network.set_grad_checkpointing(True)
    with pytest.raises(UserError, match="cannot go with gradient checkpointing"):
        sub_of(network, method)
