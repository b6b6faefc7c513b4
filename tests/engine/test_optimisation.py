"""Parameter groups, optimisers and schedules against arithmetic done by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import timm
import torch
from torch import Tensor, nn

from vtk_cli.engine.optimisation import (
    SCHEDULES,
    LearningRates,
    ParameterGroup,
    build_optimizer,
    build_schedule,
    parameter_groups,
)
from vtk_cli.errors import UserError


class WithExtras(nn.Module):
    """A network with what training adds: a point head and a mask token."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.points = nn.Linear(64, 2)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 64))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def tiny_vit() -> nn.Module:
    network: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=64, depth=3, num_heads=4, num_classes=5, init_values=1e-4
    )
    return network


def where(groups: Sequence[ParameterGroup], model: nn.Module) -> dict[str, ParameterGroup]:
    """Parameter name -> its group; every parameter is in one group only."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(parameter)], group) for group in groups for parameter in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


def test_matrices_decay_and_nothing_else_does() -> None:
    model = WithExtras(tiny_vit())
    groups = where(parameter_groups(model, model.network, weight_decay=0.05), model)
    assert groups.keys() == dict(model.named_parameters()).keys()
    spared = ("pos_embed", "cls_token", "mask_token")
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and not name.endswith(spared)
        assert groups[name]["weight_decay"] == (0.05 if is_matrix else 0.0), name
    assert groups["points.weight"]["weight_decay"] == 0.05
    assert groups["points.bias"]["weight_decay"] == 0.0


def test_a_parameter_that_is_not_trained_is_in_no_group() -> None:
    model = WithExtras(tiny_vit())
    model.network.get_submodule("patch_embed").requires_grad_(False)
    model.mask_token.requires_grad_(False)
    groups = where(parameter_groups(model, model.network, weight_decay=0.05), model)
    assert "mask_token" not in groups
    assert not any("patch_embed" in name for name in groups)


def test_layer_decay_multiplies_the_rate_from_the_head_down() -> None:
    """Three blocks: the head (and what stands beside it) 1, blocks d^1..d^3, the embedding d^4."""
    model, decay = WithExtras(tiny_vit()), 0.65
    groups = where(parameter_groups(model, model.network, weight_decay=0.05, layer_decay=decay), model)
    assert groups.keys() == dict(model.named_parameters()).keys()
    for name, power in {
        "network.head.weight": 0,
        "points.weight": 0,
        "points.bias": 0,
        "mask_token": 0,
        "network.norm.weight": 1,
        "network.blocks.2.mlp.fc1.weight": 1,
        "network.blocks.1.ls1.gamma": 2,
        "network.blocks.0.attn.qkv.bias": 3,
        "network.patch_embed.proj.weight": 4,
        "network.pos_embed": 4,
    }.items():
        assert groups[name]["lr_scale"] == pytest.approx(decay**power), name
    assert groups["network.blocks.0.attn.qkv.weight"]["weight_decay"] == 0.05
    assert {groups[name]["weight_decay"] for name in ("mask_token", "points.bias", "network.pos_embed")} == {0.0}


def test_layer_decay_and_schedule_together_give_each_layer_its_share_of_the_rate() -> None:
    model = WithExtras(tiny_vit())
    groups = parameter_groups(model, model.network, weight_decay=0.0, layer_decay=0.5)
    optimizer = build_optimizer(groups, "adamw", lr=0.1)
    schedule = build_schedule(
        optimizer, "cosine", rates=LearningRates(0.1), epochs=10, updates_per_epoch=7, on_updates=True
    )
    for step in (0, 20, 69):
        schedule.step_update(step)
        expected = 0.05 * (1 + math.cos(math.pi * step / 70))
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected * group["lr_scale"], abs=1e-12)


def test_the_three_rates_scale_alike_with_the_images_of_an_update() -> None:
    swin = LearningRates(5e-4, 5e-7, 5e-6).scaled(1024, 512)
    assert (swin.lr, swin.warmup_lr, swin.min_lr) == pytest.approx((1e-3, 1e-6, 1e-5))
    assert LearningRates(4e-3, 1e-6, 1e-5).scaled(2048, None) == LearningRates(4e-3, 1e-6, 1e-5)


def optimizer_of(lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=lr)


def rates_of(name: str, *, on_updates: bool, ticks: int, lr: float = 0.1, **options: float | None) -> list[float]:
    """The rate of each update, or of each epoch."""
    optimizer = optimizer_of(lr)
    given = LearningRates(lr, float(options.pop("warmup_lr", 0) or 0), float(options.pop("min_lr", 0) or 0))
    schedule = build_schedule(optimizer, name, rates=given, on_updates=on_updates, **options)  # type: ignore[arg-type]
    seen = []
    for tick in range(ticks):
        seen.append(optimizer.param_groups[0]["lr"])
        (schedule.step_update if on_updates else schedule.step)(tick + 1)
    return seen


def test_by_updates_the_cosine_starts_at_the_highest_rate_where_the_warm_up_ends() -> None:
    """5 epochs of 4 updates: 4 updates of warm-up from 0.02 to 0.1, then 16 of cosine from 0.1 to 0.01."""
    seen = rates_of(
        "cosine", on_updates=True, ticks=20, epochs=5, updates_per_epoch=4, warmup_epochs=1, warmup_lr=0.02, min_lr=0.01
    )
    assert seen[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert seen[4:] == pytest.approx([0.01 + 0.045 * (1 + math.cos(math.pi * t / 16)) for t in range(16)])


def test_by_epochs_the_cosine_starts_with_the_training() -> None:
    """As DeiT and timm do: after 5 epochs of warm-up the rate is that of epoch 5 of the whole cosine."""
    seen = rates_of(
        "cosine",
        on_updates=False,
        ticks=20,
        epochs=20,
        updates_per_epoch=9,
        warmup_epochs=5,
        warmup_lr=0.01,
        min_lr=0.005,
    )
    assert seen[:5] == pytest.approx([0.01 + 0.018 * t for t in range(5)])
    assert seen[5:] == pytest.approx([0.005 + 0.0475 * (1 + math.cos(math.pi * t / 20)) for t in range(5, 20)])


@pytest.mark.parametrize("on_updates", [True, False])
@pytest.mark.parametrize("name", ["cosine", "tanh", "poly"])
def test_the_last_epochs_may_cool_down_at_the_lowest_rate(name: str, on_updates: bool) -> None:
    ticks = 40 if on_updates else 10
    seen = rates_of(
        name, on_updates=on_updates, ticks=ticks, epochs=10, updates_per_epoch=4, cooldown_epochs=3, min_lr=0.004
    )
    assert seen[-(ticks * 3 // 10) :] == pytest.approx([0.004] * (ticks * 3 // 10))
    assert min(seen[: ticks * 7 // 10]) > 0.004
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [0.1] * 10),
        ("none", [0.1] * 10),
        ("step", [0.1] * 3 + [0.01] * 3 + [0.001] * 3 + [0.0001]),
        ("multistep", [0.1] * 5 + [0.01] * 2 + [0.001] * 3),
        ("poly", [0.1 - 0.01 * t for t in range(10)]),
    ],
)
def test_the_other_schedules_by_hand(name: str, expected: list[float]) -> None:
    assert rates_of(name, on_updates=False, ticks=10, epochs=10, updates_per_epoch=4) == pytest.approx(expected)
    updates = rates_of(name, on_updates=True, ticks=10, epochs=1, updates_per_epoch=10)
    assert updates == pytest.approx(expected)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("on_updates", [True, False])
def test_no_rate_is_above_the_highest_and_every_schedule_warms_up(name: str, on_updates: bool) -> None:
    ticks = 80 if on_updates else 20
    seen = rates_of(
        name, on_updates=on_updates, ticks=ticks, epochs=20, updates_per_epoch=4, warmup_epochs=5, warmup_lr=0.001
    )
    assert max(seen) <= 0.1 + 1e-12
    assert all(rate > 0 for rate in seen)
    warm = ticks // 4
    assert seen[:warm] == pytest.approx([0.001 + 0.099 * t / warm for t in range(warm)], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cosinus"}, r"--schedule: no schedule 'cosinus'; did you mean cosine"),
        ({"name": "plateau"}, "no schedule 'plateau'"),
        ({"name": "step", "cooldown_epochs": 1}, "--cooldown-epochs: the schedule step has no cool-down"),
        ({"warmup_epochs": 3, "cooldown_epochs": 2}, "3 epochs of warm-up and 2 of cool-down leave nothing of 5"),
        ({"warmup_epochs": 5}, "leave nothing of 5"),
    ],
)
def test_schedules_that_cannot_be_are_the_users_mistake(options: dict[str, object], message: str) -> None:
    arguments = {"name": "cosine", "epochs": 5, "updates_per_epoch": 2, "on_updates": True} | options
    name = str(arguments.pop("name"))
    with pytest.raises(UserError, match=message):
        build_schedule(optimizer_of(), name, rates=LearningRates(0.1), **arguments)  # type: ignore[arg-type]


def test_an_optimiser_is_timms_with_the_groups_and_what_was_asked_for() -> None:
    model = WithExtras(tiny_vit())
    groups = parameter_groups(model, model.network, weight_decay=0.3)
    adamw = build_optimizer(groups, "adamw", lr=0.02, eps=1e-6, betas=(0.9, 0.95))
    assert isinstance(adamw, torch.optim.AdamW)
    assert {group["lr"] for group in adamw.param_groups} == {0.02}
    assert {group["weight_decay"] for group in adamw.param_groups} == {0.0, 0.3}
    assert {(group["eps"], group["betas"], group["fused"]) for group in adamw.param_groups} == {
        (1e-6, (0.9, 0.95), True)
    }
    sgd = build_optimizer(parameter_groups(model, model.network, weight_decay=0.0), "sgd", lr=0.1, momentum=0.7)
    assert {(group["momentum"], group["nesterov"]) for group in sgd.param_groups} == {(0.7, True)}


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lion", "adafactor", "lookahead_adamw", "muon", "lars"])
@pytest.mark.parametrize("layer_decay", [None, 0.7])
def test_a_step_of_each_kind_of_optimiser_lowers_a_bowl(name: str, layer_decay: float | None) -> None:
    torch.manual_seed(0)
    network = tiny_vit()
    groups = parameter_groups(network, network, weight_decay=0.0, layer_decay=layer_decay)
    optimizer = build_optimizer(groups, name, lr=1e-3)
    schedule = build_schedule(
        optimizer, "constant", rates=LearningRates(1e-3), epochs=1, updates_per_epoch=9, on_updates=True
    )

    def bowl() -> Tensor:
        return sum(parameter.square().sum() for parameter in network.parameters())  # type: ignore[return-value]

    before = bowl().item()
    for step in range(3):
        optimizer.zero_grad()
        bowl().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step_update(step + 1)
    assert bowl().item() < before


def test_an_unknown_optimiser_gets_the_nearest_names() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(2))]}]
    with pytest.raises(UserError, match=r"--optimizer: timm has no optimiser 'adamx'; did you mean .*adam"):
        build_optimizer(groups, "adamx", lr=0.1)
    with pytest.raises(UserError, match="fusedlamb cannot be made"):
        build_optimizer(groups, "fusedlamb", lr=0.1)
    with pytest.raises(UserError, match=r"adamw cannot be made .*beta"):
        build_optimizer(groups, "adamw", lr=0.1, betas=(2.0, 3.0))
