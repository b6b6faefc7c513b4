from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.models.weights import head_classes, load_exactly, mismatch, read_state_dict, state_sha256


def small_net(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, classes))


STATE = {"fc.weight": torch.arange(6.0).reshape(3, 2), "fc.bias": torch.ones(3)}


def same(read: dict[str, Tensor], expected: dict[str, Tensor] = STATE) -> bool:
    return read.keys() == expected.keys() and all(torch.equal(read[name], expected[name]) for name in expected)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth", "bin", "pth.tar"])
def test_a_plain_state_dict_is_read_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"net.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(STATE, file)
    else:
        torch.save(STATE, file)
    assert same(read_state_dict(file))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "arch": "resnet50"},
        lambda state: {"model": state, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model_ema": state, "model": {"fc.weight": torch.zeros(3, 2)}},
        lambda state: {"state_dict_ema": state, "state_dict": {"fc.weight": torch.zeros(3, 2)}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {"state_dict": state}},
    ],
)
def test_wrappers_and_prefixes_are_taken_off_and_averaged_weights_come_first(tmp_path: Path, wrap: Any) -> None:
    file = tmp_path / "checkpoint.pt"
    torch.save(wrap(STATE), file)
    assert same(read_state_dict(file))


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("how", ["zip", "old", "pickle"])
def test_a_pickle_with_code_is_refused_and_its_code_never_runs(tmp_path: Path, how: str) -> None:
    marker, file = tmp_path / "marker", tmp_path / "evil.pt"
    content = {"state_dict": STATE, "extra": Trap(marker)}
    if how == "pickle":
        file.write_bytes(pickle.dumps(content["extra"]))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UserError) as caught:
        read_state_dict(file)
    assert not marker.exists()
    assert "\n" not in str(caught.value)
    if how != "pickle":
        assert "holds code (posix.mkdir)" in str(caught.value)
        assert "it was not run" in str(caught.value)
    with contextlib.suppress(pickle.UnpicklingError, RuntimeError):
        torch.load(file, weights_only=False)  # the trap is live: an unguarded reader springs it
    assert marker.exists()


def test_a_whole_pickled_module_is_refused_by_the_names_of_its_classes(tmp_path: Path) -> None:
    file = tmp_path / "whole.pt"
    torch.save(small_net(), file)
    with pytest.raises(UserError, match=r"holds code \(.*torch\.nn\.modules\..*not only weights; it was not run"):
        read_state_dict(file)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_line(tmp_path: Path, suffix: str, kept: float) -> None:
    file = tmp_path / f"cut.{suffix}"
    state = {"weight": torch.randn(64, 64)}
    safetensors.torch.save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UserError) as caught:
        read_state_dict(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [2**62, 2**40, 100_000_001, 3])
def test_a_safetensors_header_of_absurd_length_is_refused(tmp_path: Path, length: int) -> None:
    file = tmp_path / "absurd.safetensors"
    file.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        read_state_dict(file)


def test_a_file_that_unpacks_to_many_times_its_size_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pt"
    torch.save({"weight": torch.zeros(2_000_000)}, tmp_path / "honest.pt")
    with zipfile.ZipFile(tmp_path / "honest.pt") as honest, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in honest.namelist():
            bomb.writestr(name, honest.read(name))
    with pytest.raises(UserError, match="unpacks to 8 MiB, many times its size"):
        read_state_dict(file)
    assert read_state_dict(tmp_path / "honest.pt")["weight"].shape == (2_000_000,)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"fc.weight": torch.ones(1), "lr": 0.1}, torch.ones(2)])
def test_a_file_without_a_state_dict_says_what_to_save(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "other.pt"
    torch.save(content, file)
    with pytest.raises(
        UserError, match="save the state dict, alone or under state_dict_ema, model_ema, state_dict, model"
    ):
        read_state_dict(file)


def test_a_missing_file_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such weight file"):
        read_state_dict(tmp_path / "none.pt")


def test_weights_that_do_not_fit_are_named_with_counts() -> None:
    net = small_net(3)
    state = dict(small_net(5).state_dict())
    del state["0.weight"], state["0.bias"], state["1.num_batches_tracked"]
    state |= {f"extra{index}": torch.ones(1) for index in range(5)}
    text = mismatch(net, state)
    assert "2 missing (0.weight, 0.bias)" in text
    assert "5 unexpected (extra0, extra1, extra2, ...)" in text
    assert "2 of another shape (2.weight (5, 4) for (3, 4), 2.bias (5,) for (3,))" in text
    before = state_sha256(net)
    with pytest.raises(UserError, match=r"^net\.pt: the weights do not fit Sequential: 2 missing"):
        load_exactly(net, state, "net.pt")
    assert state_sha256(net) == before


def test_weights_from_before_batch_norm_counted_its_batches_still_load() -> None:
    net, other = small_net(), small_net()
    state = {name: tensor for name, tensor in other.state_dict().items() if not name.endswith("num_batches_tracked")}
    load_exactly(net, state, "old.pt")
    assert state_sha256(net) == state_sha256(other)


@pytest.mark.parametrize(
    ("names", "heads", "classes"),
    [
        ({"fc.weight": 7}, (), 7),
        ({"head.fc.weight": 7, "stem.weight": 9}, (), 7),
        ({"classifier.0.weight": 9, "classifier.3.weight": 8, "classifier.10.weight": 7}, (), 7),
        ({"heads.head.weight": 7}, (), 7),
        ({"last.weight": 7, "fc.weight": 9}, ("last",), 7),
        ({"head.weight": 7, "head_dist.weight": 7}, ("head", "head_dist"), 7),
        ({"block.fc.weight": 9}, (), None),
    ],
)
def test_the_class_count_is_read_from_the_last_layer_of_the_head(
    names: dict[str, int], heads: tuple[str, ...], classes: int | None
) -> None:
    state = {name: torch.zeros(rows, 2) for name, rows in names.items()}
    assert head_classes(state, heads) == classes


def test_a_norm_in_the_head_is_not_its_classifier() -> None:
    state = {"head.norm.weight": torch.ones(9), "head.fc.weight": torch.zeros(7, 9), "head.fc.bias": torch.zeros(7)}
    assert head_classes(state) == 7


def test_the_fingerprint_of_a_state_sees_every_bit_and_name_but_not_layout_or_order() -> None:
    torch.manual_seed(0)
    net = small_net()
    first = state_sha256(net)
    turned = small_net()
    turned.load_state_dict(net.state_dict())
    turned[2].weight = nn.Parameter(net[2].weight.detach().t().contiguous().t())
    assert not turned[2].weight.is_contiguous()
    assert state_sha256(turned) == first
    with torch.no_grad():
        net[2].weight[0, 0] = torch.nextafter(net[2].weight[0, 0], torch.tensor(9.0))
    assert state_sha256(net) != first
    assert state_sha256(nn.ModuleDict({"a": nn.Linear(1, 1, bias=False)})) != state_sha256(nn.Linear(1, 1, bias=False))


def test_the_fingerprint_tells_dtypes_and_shapes_apart_and_takes_scalars_and_bfloat16() -> None:
    class Holder(nn.Module):
        def __init__(self, tensor: Tensor) -> None:
            super().__init__()
            self.register_buffer("held", tensor)

    tensors = [
        torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(8, dtype=torch.bfloat16),
        torch.tensor(0.0),
        torch.zeros(0),
    ]
    assert len({state_sha256(Holder(tensor)) for tensor in tensors}) == len(tensors)
