"""Feature maps of a network are those that timm gives; what has no such maps is refused in a line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.models.feature_maps import FeatureMap, feature_network, has_published_weights, require_nameable
from vtk_cli.models.names import parse_network
from vtk_cli.models.weights import NoWeights
from vtk_cli.models.zoo import PixelConfig, network_metadata

SWIN = "swin_tiny_patch4_window7_224"
SMALL_SWIN: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
SMALL_TWINS: dict[str, Any] = {"embed_dims": (16, 32, 48, 64), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4)}
OWN = """
from torch import nn

class Own(nn.Module):
    feature_info = ((4, 4), (6, 8), (8, 16), (10, 32))

    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList(
            nn.Conv2d(a, b, s, stride=s) for a, b, s in ((3, 4, 4), (4, 6, 2), (6, 8, 2), (8, 10, 2))
        )
        self.classify = nn.Linear(10, 5)

    def feature_maps(self, images):
        maps = []
        for step in self.steps:
            images = step(images)
            maps.append(images)
        return maps

def make():
    return Own()

def plain():
    return nn.Linear(3, 5)
"""


def noise(*size: int) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


def random_network(name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(1)
    network: nn.Module = timm.create_model(name, num_classes=7, **arguments)
    return network.eval()


def save(path: Path, network: nn.Module) -> Path:
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("test_efficientnet", {}),  # a class of its own
        ("test_mambaout", {}),  # channels last
        (SWIN, SMALL_SWIN),  # channels last, of a fixed size
        ("twins_svt_small", SMALL_TWINS),  # a getter around the network
    ],
)
def test_the_maps_are_timms_own_with_the_weights_of_a_file(
    name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    network = random_network(name, **arguments)
    size = (224, 224) if name == SWIN else (64, 96)  # timm's own Swin takes one size
    wanted = network.forward_intermediates(noise(*size), intermediates_only=True, output_fmt="NCHW")  # type: ignore[operator]
    found = feature_network(f"{name}={save(tmp_path / 'net.pt', network)}", model_args=arguments)
    maps = found.module.feature_maps(noise(*size))
    assert [info.stride for info in found.module.feature_info] == [8, 16, 32]
    assert [info.channels for info in found.module.feature_info] == [each.shape[1] for each in maps]
    for one, other in zip(maps, wanted[-3:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert (found.architecture, found.weights_source) == (name, f"file: {tmp_path / 'net.pt'}")


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_random_weights_are_drawn_as_timm_draws_them_and_nothing_else_is_drawn(name: str) -> None:
    torch.manual_seed(3)
    module = feature_network(name).module.eval()
    after = torch.rand(1)
    torch.manual_seed(3)
    indices = (2, 3, 4) if name == "test_resnet" else (1, 2, 3)
    theirs = timm.create_model(name, features_only=True, out_indices=indices).eval()
    assert torch.equal(after, torch.rand(1))
    for one, other in zip(module(noise(64, 64)), theirs(noise(64, 64)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_every_cell_that_sees_a_part_of_the_image_is_there_and_what_is_beyond_counts_as_zero(name: str) -> None:
    module = feature_network(name).module
    images = noise(50, 70)
    whole = torch.zeros(2, 3, 64, 96)
    whole[:, :, :50, :70] = images
    found = module.feature_maps(images)
    assert [tuple(each.shape[2:]) for each in found] == [(7, 9), (4, 5), (2, 3)]
    for one, other in zip(found, module.feature_maps(whole), strict=True):
        assert torch.equal(one, other[:, :, : one.shape[2], : one.shape[3]])


def test_other_strides_may_be_asked_for() -> None:
    found = feature_network("test_resnet", strides=(2, 16)).module
    assert found.feature_info == (FeatureMap(32, 2), FeatureMap(192, 16))
    assert [tuple(each.shape) for each in found(noise(32, 64))] == [(2, 32, 16, 32), (2, 192, 2, 4)]


def test_a_file_that_says_what_it_is_brings_arguments_and_preprocessing(tmp_path: Path) -> None:
    arguments = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "img_size": 64}
    network = random_network(SWIN, **arguments)
    pixels = PixelConfig(64, (0.1,) * 3, (0.2,) * 3)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(network.state_dict(), path, network_metadata(SWIN, pixels, arguments))
    found = feature_network(str(path))
    assert (found.architecture, dict(found.model_args)) == (SWIN, arguments)
    assert (found.config.mean, found.config.std) == (pixels.mean, pixels.std)
    again = feature_network(found.architecture, model_args=found.model_args)
    again.module.load_state_dict(found.module.state_dict())
    for one, other in zip(again.module(noise(50, 90)), found.module(noise(50, 90)), strict=True):
        assert torch.equal(one, other)


def test_published_weights_and_those_on_the_hub_are_taken(place_on_hub: Callable[..., Path]) -> None:
    network = random_network("test_resnet")
    full = timm.create_model("test_resnet").eval()
    place_on_hub("timm/test_resnet.r160_in1k", full)
    config = {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": {"mean": [0.1] * 3, "num_classes": 7}}
    place_on_hub("someone/net", network, config)
    for spec, source in (("test_resnet", full), ("hub:someone/net", network)):
        found = feature_network(spec, weights="pretrained")
        wanted = source.forward_intermediates(noise(64, 64), intermediates_only=True)[-3:]  # type: ignore[operator]
        assert all(torch.equal(*pair) for pair in zip(found.module(noise(64, 64)), wanted, strict=True))
        assert found.architecture == "test_resnet"
        assert found.weights_source.startswith("cache: ")
    assert found.config.mean == (0.1,) * 3


def test_whether_weights_are_published_is_known_without_asking_anybody() -> None:
    known = {name: has_published_weights(parse_network(name)) for name in ("resnet50", "test_coatnet", "hub:a/b")}
    assert known == {"resnet50": True, "test_coatnet": False, "hub:a/b": True}


def test_what_no_map_depends_on_does_not_learn_and_everything_else_does() -> None:
    """The maps of stride 2 and 4 of an HRNet have weights of their own."""
    module = feature_network("hrnet_w18_small").module
    torch.stack([each.sum() for each in module(noise(64, 64))]).sum().backward()
    learning = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert 0 < len(learning) < len(dict(module.named_parameters()))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_activations_that_are_computed_again_give_the_same_gradients(name: str) -> None:
    module = feature_network(name).module
    gradients = []
    for _ in range(2):
        module.zero_grad()
        torch.stack([each.square().mean() for each in module(noise(64, 64))]).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None])
        module.recompute()
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_a_network_that_cannot_compute_them_again_says_so() -> None:
    with pytest.raises(UserError, match="--grad-checkpointing: HighResolutionNetFeatures does not offer"):
        feature_network("hrnet_w18_small").module.recompute()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module with networks that say themselves what maps they have."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_networks.py").write_text(OWN)
    yield "own_networks"
    sys.modules.pop("own_networks", None)


def test_a_network_with_maps_of_its_own_gives_those_asked_for(own: str, tmp_path: Path) -> None:
    found = feature_network(f"py:{own}:make")
    assert found.architecture == f"py:{own}:make"
    assert found.module.feature_info == (FeatureMap(6, 8), FeatureMap(8, 16), FeatureMap(10, 32))
    maps = found.module(noise(40, 33))
    assert [tuple(each.shape) for each in maps] == [(2, 6, 5, 5), (2, 8, 3, 3), (2, 10, 2, 2)]
    whole = torch.zeros(2, 3, 64, 64)
    whole[:, :, :40, :33] = noise(40, 33)
    theirs = found.module.body.feature_maps(whole)  # type: ignore[operator]
    for one, other in zip(maps, theirs[1:], strict=True):
        assert torch.equal(one, other[..., : one.shape[2], : one.shape[3]])
    classifier = found.module.body.classify
    assert not any(parameter.requires_grad for parameter in classifier.parameters())  # type: ignore[union-attr]
    file = tmp_path / "own.pt"
    torch.save(found.module.body.state_dict(), file)
    loaded = feature_network(f"py:{own}:make={file}")
    for one, other in zip(loaded.module(whole), found.module(whole), strict=True):
        assert torch.equal(one, other)


def test_a_network_without_maps_of_its_own_is_refused(own: str) -> None:
    with pytest.raises(UserError, match="a Linear gives no feature maps"):
        feature_network(f"py:{own}:plain")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_ti", "vit_ti: has feature maps of strides 16, 16, 16, and not of 8, 16, 32"),
        ("nest_tiny", "strides 4, 8, 16, and not of 8, 16, 32"),
        ("efficientvit_m0", "strides 16, 32, 64, and not of 8, 16, 32"),
        ("test_coatnet", "takes no images of any size: none of 64 x 96 pixels"),
        ("test_maxvit", "takes no images of any size"),
        ("mobilevitv2_050", "its maps of 64 x 96 pixels are 8 x 12, 4 x 6, 2 x 4: they are not of whole strides"),
        ("tv:resnet18", "networks of torchvision give no feature maps here; take timm's"),
        ("nosuchnet", "unknown network"),
    ],
)
def test_a_network_without_such_maps_is_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        feature_network(name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_a_network_that_will_not_do_is_not_fetched_first(empty_caches: Path) -> None:
    with pytest.raises(UserError, match="strides 16, 16, 16"):
        feature_network("vit_ti", weights="pretrained")
    with pytest.raises(NoWeights):
        feature_network("test_resnet", weights="pretrained")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "net.pt", random_network("test_convnext"))
    with pytest.raises(UserError, match=r"net\.pt: the weights do not fit ResNet"):
        feature_network(f"test_resnet={file}")
    with pytest.raises(UserError, match=r"net\.pt: the weights do not fit ResNet"):
        feature_network("test_resnet", weights=file)


@pytest.mark.parametrize(
    ("architecture", "arguments", "said"),
    [
        ("py:os:getcwd", "{}", "may not name the architecture 'py:os:getcwd' itself"),
        ("hub:someone/net", "{}", "may not name the architecture"),
        ("nosuchnet", "{}", "is for the unknown architecture"),
        ("test_resnet", "[]", "no JSON object"),
        ("test_resnet", '{"checkpoint_path": "x"}', "may not set checkpoint_path"),
    ],
)
def test_a_file_may_not_choose_what_runs_or_is_fetched(architecture: str, arguments: str, said: str) -> None:
    require_nameable("test_resnet", '{"drop_path_rate": 0.1}', Path("detector.safetensors"))
    with pytest.raises(UserError, match=said) as error:
        require_nameable(architecture, arguments, Path("detector.safetensors"))
    assert str(error.value).startswith("detector.safetensors: ")
