"""Which parts of a network are put together on their own."""

from __future__ import annotations

import copy

import pytest
import timm
from torch import nn

from vtk_cli.engine.processes.sharded_blocks import blocks


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("vit_tiny_patch16_224", "Block", 12), ("resnet18", "BasicBlock", 8), ("swin_tiny_patch4_window7_224", None, 12)],
)
def test_layers_of_transformers_and_residual_blocks_are_blocks(name: str, kind: str | None, count: int) -> None:
    found = blocks(timm.create_model(name))
    assert len(found) == count
    assert {type(one).__name__ for one in found} == {kind or "SwinTransformerBlock"}


def test_a_copy_beside_a_network_has_the_blocks_of_the_network() -> None:
    """As momentum networks do, which follow weight by weight."""
    network = timm.create_model("resnet18")
    both = nn.ModuleDict({"fast": network, "slow": nn.ModuleList([copy.deepcopy(network)])})
    names = {id(module): name for name, module in both.named_modules()}
    found = [names[id(one)] for one in blocks(both)]
    fast = [name.removeprefix("fast.") for name in found if name.startswith("fast.")]
    assert fast == [name.removeprefix("slow.0.") for name in found if name.startswith("slow.")]
    assert len(fast) == 8


def test_blocks_that_share_a_weight_with_anything_are_none() -> None:
    layers = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16) for _ in range(4)])
    model = nn.ModuleDict({"layers": layers, "head": nn.Linear(8, 16)})
    model["head"].weight = layers[1].linear1.weight
    layers[3].linear2.weight = layers[2].linear2.weight
    assert blocks(model) == [layers[0]]


def test_what_needs_all_its_weights_at_once_has_no_blocks() -> None:
    network = nn.ModuleDict({name: timm.create_model("resnet18") for name in ("one", "other")})
    network["one"].needs_all_weights = True
    found = blocks(network)
    assert len(found) == 8
    assert all(any(block is one for one in network["other"].modules()) for block in found)
    network.needs_all_weights = True
    assert blocks(network) == []


def test_a_network_with_nothing_that_repeats_has_no_blocks() -> None:
    assert blocks(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), nn.Linear(2, 2))) == []
