from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.prune.generators import Generator, create_generator
from vtk_cli.prune.masking import prunable
from vtk_cli.prune.published_generators import WRAPPER, read_published, ticket_of_published
from vtk_cli.prune.rebuilding import rebuild
from vtk_cli.prune.samples import latents
from vtk_cli.prune.ticket_file import read_ticket, write_ticket
from vtk_cli.prune.verification import verify

SNGAN_BLOCK = {"conv1": "c1", "conv2": "c2", "shortcut": "c_sc", "bn1": "b1", "bn2": "b2"}
RESNET_BLOCK = {
    "conv1": ("conv1", "model.3"),
    "conv2": ("conv2", "model.6"),
    "bypass": ("conv_bypass", "bypass.0"),
    "bn1": ("model.0",),
    "bn2": ("model.4",),
}
State = dict[str, Any]


def random_generator(kind: str, *, bias: bool = True) -> tuple[Generator, dict[str, Tensor], dict[str, Tensor]]:
    """A generator whose tensors are all random, its weights before masking, and its masks."""
    generator = create_generator(kind, image_size=32, nz=6, ngf=8, bias=bias)
    draw = torch.Generator().manual_seed(1)
    state = {name: 0.1 + torch.rand(one.shape, generator=draw) for name, one in generator.state_dict().items()}
    lit = {name: -one if name.endswith("running_mean") else one for name, one in state.items()}
    generator.load_state_dict(lit)  # means below 0, or no pixel would pass the rectifiers
    theta, masks = {}, {}
    for name, layer in prunable(generator).items():
        theta[name] = torch.randn(layer.weight.shape, generator=draw) * 0.2
        masks[name] = torch.rand(layer.weight.shape, generator=draw) < 0.3
        with torch.no_grad():
            layer.weight.copy_(theta[name] * masks[name])
    return generator.eval(), theta, masks


def published_names(kind: str, name: str) -> tuple[str, ...]:
    """What the published code calls one of our modules."""
    parts = name.split(".")
    if kind == "sngan":
        outer = {"first": "l1", "bn": "b5", "last": "c5"}
        return (outer[parts[1]],) if len(parts) == 2 else (f"block{int(parts[2]) + 2}.{SNGAN_BLOCK[parts[3]]}",)
    outer = {"first": "net.firstConv", "bn": "net.batchNorm", "last": "net.lastConv"}
    if len(parts) == 2:
        return (outer[parts[1]],)
    return tuple(f"net.resblock_{parts[2]}.{part}" for part in RESNET_BLOCK[parts[3]])


def published(kind: str, generator: Generator, theta: dict[str, Tensor], masks: dict[str, Tensor]) -> State:
    state: State = {}
    for key, tensor in generator.state_dict().items():
        owner, _, field = key.rpartition(".")
        for name in published_names(kind, owner):
            state[f"module.{name}.{field}"] = theta[owner] if field == "weight" and owner in theta else tensor
    for owner, mask in masks.items():
        has_bias = prunable(generator)[owner].bias is not None
        scores = torch.rand(mask.shape)
        for name in published_names(kind, owner):
            state[f"module.{name}.flag"] = mask.float()
            state[f"module.{name}.scores"] = scores
            state[f"module.{name}.bias_scores"] = torch.tensor(0.9)
            if not has_bias:
                state[f"module.{name}.bias"] = state[f"module.{name}.bias_flag"] = torch.tensor(0.9)
    return state


def save(state: State, path: Path) -> Path:
    torch.save({WRAPPER: state, "classifier": "vgg19", "Mean": torch.zeros(3), "optimizerG_state_dict": {}}, path)
    return path


def images(network: nn.Module) -> Tensor:
    with torch.no_grad():
        made: Tensor = network(latents(3, 6, seed=1))
    return made


@pytest.mark.parametrize("kind", ["sngan", "resnet"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_published_checkpoint_makes_its_images(kind: str, bias: bool, tmp_path: Path) -> None:
    generator, theta, masks = random_generator(kind, bias=bias)
    found = read_published(save(published(kind, generator, theta, masks), tmp_path / "a.pt"))
    assert found.network.arguments == {**generator.arguments, "bias": True}
    assert torch.equal(images(found.network), images(generator))
    assert images(generator).std() > 0.01
    assert all(torch.equal(found.theta[name], theta[name]) for name in theta)
    assert all(torch.equal(found.masks[name], masks[name]) for name in masks)


def test_masked_biases_are_zero_where_their_flag_is(tmp_path: Path) -> None:
    generator, theta, masks = random_generator("sngan")
    state = published("sngan", generator, theta, masks)
    flag = (torch.arange(3) % 2).float()
    state["module.c5.bias_flag"] = flag
    found = read_published(save(state, tmp_path / "a.pt"))
    last, ours = prunable(found.network)["body.last"], prunable(generator)["body.last"]
    assert torch.equal(last.bias, ours.bias * flag)


def test_a_state_dict_alone_and_without_flags_is_dense(tmp_path: Path) -> None:
    generator, theta, masks = random_generator("resnet")
    state = published("resnet", generator, theta, masks)
    plain = {key: one for key, one in state.items() if key.rpartition(".")[2] not in {"flag", "scores"}}
    torch.save(plain, tmp_path / "a.pt")
    found = read_published(tmp_path / "a.pt")
    assert all(bool(mask.all()) for mask in found.masks.values())
    assert all(torch.equal(layer.weight, theta[name]) for name, layer in prunable(found.network).items())


@pytest.mark.parametrize("kind", ["sngan", "resnet"])
def test_its_ticket_rebuilds_the_same_generator(kind: str, tmp_path: Path) -> None:
    generator, theta, masks = random_generator(kind)
    found = read_published(save(published(kind, generator, theta, masks), tmp_path / "a.pt"))
    write_ticket(tmp_path / "a.vtkt", ticket_of_published(found))
    ticket = read_ticket(tmp_path / "a.vtkt")
    assert torch.equal(images(rebuild(ticket)), images(generator))
    assert all(finding.holds for finding in verify(ticket))
    assert torch.equal(images(found.network), images(generator))


def half_a_flag(state: State) -> None:
    state["module.net.resblock_0.conv1.flag"] = state["module.net.resblock_0.model.3.flag"] = (
        state["module.net.resblock_0.conv1.flag"] / 2
    )


def other_alias(state: State) -> None:
    state["module.net.resblock_1.model.6.weight"] = state["module.net.resblock_1.model.6.weight"] + 1


def unknown_layer(state: State) -> None:
    state["module.net.mapping.weight"] = torch.zeros(2, 2)


def without_first(state: State) -> None:
    for key in [key for key in state if "firstConv" in key]:
        del state[key]


def without_bypass(state: State) -> None:
    for key in [key for key in state if "resblock_1.conv_bypass" in key or "resblock_1.bypass" in key]:
        del state[key]


def no_tensor(state: State) -> None:
    state["module.net.note"] = "a note"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (half_a_flag, "the flag of body.blocks.0.conv1 is no mask of 0 and 1"),
        (other_alias, "net.resblock_1.model.6.weight is stored twice, with other values"),
        (unknown_layer, "1 tensors belong to no generator that is known (net.mapping.weight)"),
        (without_first, "'body.first' is missing"),
        (without_bypass, "1 missing (body.blocks.1.bypass.weight)"),
        (no_tensor, "holds more than tensors (module.net.note)"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    change: Callable[[State], None], said: str, tmp_path: Path
) -> None:
    state = published("resnet", *random_generator("resnet"))
    change(state)
    with pytest.raises(UserError) as caught:
        read_published(save(state, tmp_path / "a.pt"))
    assert said in str(caught.value)


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(UserError, match="no such weight file"):
        read_published(path)
    path.write_bytes(b"text")
    with pytest.raises(UserError, match="is damaged or cut short"):
        read_published(path)
    torch.save({WRAPPER: nn.Linear(1, 1)}, path)
    with pytest.raises(UserError, match="holds code"):
        read_published(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=f"holds no {WRAPPER}"):
        read_published(path)
