"""Batch normalisation over two processes is that of one on the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from tests.engine import normalising_worlds as worlds
from tests.engine.two_processes import run_world
from vtk_cli.engine.processes.batch_norm import synchronise_batch_norm


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("world")
    assert run_world(Path(worlds.__file__), folder) == [0, 0]
    return [torch.load(folder / f"seen-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("parts", worlds.PARTS)
@pytest.mark.parametrize("kind", worlds.LAYERS)
def test_two_processes_normalise_as_one_with_both_shares(kind: str, parts: str, together: list[dict[str, Any]]) -> None:
    """Outputs, gradients of inputs and weights, running statistics; then all the same in eval mode."""
    alone = worlds.seen(worlds.layer(kind), kind, 0, 6)
    first, second = (seen["layers"][kind, parts] for seen in together)
    for name in ("outputs", "inputs"):
        for whole, *shares in zip(alone[name], first[name], second[name], strict=True):
            torch.testing.assert_close(torch.cat(shares), whole, rtol=1e-12, atol=1e-12)
    assert alone["weights"].keys() == first["weights"].keys()
    for name, whole in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name] + second["weights"][name], whole, rtol=1e-12, atol=1e-12)
    for found in (first, second):
        assert list(found["state"]) == list(alone["state"])
        torch.testing.assert_close(found["state"], alone["state"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found["evaluated"], alone["evaluated"], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_a_single_value_a_channel_in_all_processes_is_refused_in_all(together: list[dict[str, Any]]) -> None:
    assert all("more than one value" in seen["one value"] for seen in together)


@pytest.mark.parametrize("kind", worlds.LAYERS)
def test_in_a_world_of_one_it_is_the_ordinary_layer(kind: str) -> None:
    ordinary, synchronised = worlds.layer(kind), synchronise_batch_norm(worlds.layer(kind))
    torch.testing.assert_close(worlds.seen(synchronised, kind, 0, 6), worlds.seen(ordinary, kind, 0, 6), rtol=0, atol=0)


def test_a_layer_stays_the_object_it_is_with_its_names_and_kind() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(BatchNormAct2d(4)))
    layer, keys, parameters = model[1], list(model.state_dict()), list(model.parameters())
    assert synchronise_batch_norm(synchronise_batch_norm(model)) is model
    assert model[1] is layer
    assert isinstance(layer, nn.BatchNorm2d)
    assert list(model.state_dict()) == keys
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(BatchNormAct2d(4)))
    plain.load_state_dict(model.state_dict())


def test_an_unknown_kind_of_batch_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="1: LazyBatchNorm2d"):
        synchronise_batch_norm(nn.Sequential(nn.Identity(), nn.LazyBatchNorm2d()))
