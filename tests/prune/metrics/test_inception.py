"""The Inception of published FIDs: its keys, its arithmetic, its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision.models.inception as published
from torch import nn
from torch.nn import functional as F

from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.prune.metrics import inception
from vtk_cli.prune.metrics.inception import InceptionV3, load_inception


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    torch.manual_seed(0)
    made = InceptionV3()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return made.eval()


class _Pools:
    """torch's functions, with the pools of TensorFlow's graph."""

    relu = staticmethod(F.relu)
    max_pool2d = staticmethod(F.max_pool2d)
    last_block = False

    @classmethod
    def avg_pool2d(cls, x: torch.Tensor, kernel_size: int, stride: int, padding: int) -> torch.Tensor:
        if cls.last_block:
            return F.max_pool2d(x, kernel_size, stride, padding)
        return F.avg_pool2d(x, kernel_size, stride, padding, count_include_pad=False)


def test_it_has_the_parameters_of_torchvisions_network_with_1008_classes(network: InceptionV3) -> None:
    other = published.Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    shapes = {name: tuple(value.shape) for name, value in other.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == shapes


def test_it_computes_what_torchvisions_network_does_with_tensorflows_pools(
    network: InceptionV3, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = published.Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    other.load_state_dict(network.state_dict())
    other.fc = nn.Identity()
    other.Mixed_7c.register_forward_pre_hook(lambda *_: setattr(_Pools, "last_block", True))
    images = torch.rand(2, 3, 139, 139) * 2 - 1
    with torch.no_grad():
        ordinary, found = other(images), network(images)
        monkeypatch.setattr(_Pools, "last_block", False)
        monkeypatch.setattr(published, "F", _Pools)
        expected = other(images)
    assert found.shape == (2, 2048)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, ordinary, rtol=1e-2)


def test_another_file_is_refused_by_its_checksum(network: InceptionV3, tmp_path: Path) -> None:
    file = tmp_path / "inception.pth"
    torch.save(network.state_dict(), file)
    with pytest.raises(UserError, match=r"not the Inception of published FIDs .*6726825d"):
        load_inception(file)


def test_the_right_file_is_loaded_frozen_and_in_eval_mode(network: InceptionV3, tmp_path: Path) -> None:
    file = tmp_path / "inception.pth"
    # As the published file was written: by a torch that did not count batches.
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(state, file)
    loaded = load_inception(file, sha256_file(file))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(loaded.Mixed_7c.branch_pool.conv.weight, network.Mixed_7c.branch_pool.conv.weight)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.pth: no such weight file.*pt_inception-2015-12-05"):
        load_inception(tmp_path / "nothing.pth")


def test_the_checksum_begins_as_the_files_name_ends() -> None:
    assert inception.FILE.endswith(f"-{inception.SHA256[:8]}.pth")
