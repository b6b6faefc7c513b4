from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from torchvision import models as torchvision_models

from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.models.names import parse_network
from vtk_cli.models.weights import NoWeights, state_sha256
from vtk_cli.models.zoo import PixelConfig, create_network, network_metadata

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def save(path: Path, module: nn.Module, metadata: dict[str, str] | None = None) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(module.state_dict(), path, metadata)
    else:
        torch.save(module.state_dict(), path)
    return path


def test_resnet50_and_vit_b_come_with_their_published_preprocessing_at_training_size() -> None:
    resnet = create_network("resnet50", weights="scratch")
    assert resnet.config == PixelConfig(224, IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.95)
    assert (resnet.num_classes, resnet.weights_source, resnet.module.training) == (1000, "scratch", False)
    vit = create_network("vit_b", weights="scratch", num_classes=10, depth=1)
    assert vit.config == PixelConfig(224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.9)
    assert vit.num_classes == 10


def test_scratch_weights_follow_torchs_generator_and_read_no_file(empty_caches: Path) -> None:
    prints = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        prints.append(create_network("test_vit", weights="scratch", num_classes=3).weights_sha256)
    assert prints[0] == prints[1] != prints[2]
    assert not any(empty_caches.iterdir())


def test_the_constructors_image_size_is_the_inputs() -> None:
    network = create_network("test_vit", weights="scratch", num_classes=4, img_size=32, patch_size=8)
    assert network.config.input_size == 32
    assert network.module(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_published_weights_in_the_cache_make_the_published_network_offline(
    place_on_hub: Callable[..., Path], tiny_network: nn.Module
) -> None:
    path = place_on_hub("timm/test_vit.r160_in1k", tiny_network)
    network = create_network("test_vit", offline=True)
    pixels = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network.module(pixels), tiny_network.eval()(pixels))
    assert network.weights_source == "cache: timm/test_vit.r160_in1k"
    assert network.weights_sha256 == sha256_file(path)
    assert (network.num_classes, network.config.input_size) == (1000, 160)
    assert "state_dict" not in network.module.pretrained_cfg


def test_published_weights_with_another_class_count_are_not_given_a_random_head(
    place_on_hub: Callable[..., Path], tiny_network: nn.Module
) -> None:
    place_on_hub("timm/test_vit.r160_in1k", tiny_network)
    with pytest.raises(UserError, match="test_vit: has 1000 classes, not 10"):
        create_network("test_vit", num_classes=10, offline=True)
    assert create_network("test_vit", num_classes=1000, offline=True).num_classes == 1000


def test_a_damaged_file_in_the_cache_is_one_line_that_names_it(
    place_on_hub: Callable[..., Path], tiny_network: nn.Module
) -> None:
    path = place_on_hub("timm/test_vit.r160_in1k", tiny_network)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model\.safetensors: is not a whole safetensors file") as caught:
        create_network("test_vit", offline=True)
    assert not isinstance(caught.value, NoWeights)


def test_no_weights_anywhere_is_an_error_a_fallback_can_catch(empty_caches: Path) -> None:
    for spec in ("resnet50", "tv:resnet18", "hub:acme/net"):
        with pytest.raises(NoWeights, match="no pretrained weights on this machine and no network"):
            create_network(spec)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_files_weights_are_loaded_with_the_classes_of_its_head(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    saved = timm.create_model("resnet10t", num_classes=7)
    file = save(tmp_path / f"net.{suffix}", saved)
    network = create_network(f"resnet10t={file}")
    assert state_sha256(network.module) == state_sha256(saved)
    assert (network.num_classes, network.weights_source) == (7, f"file: {file}")
    assert network.weights_sha256 == sha256_file(file)
    given = create_network("resnet10t", weights=file, num_classes=7)
    assert given.weights_sha256 == network.weights_sha256
    with pytest.raises(UserError, match="has 7 classes, not 10"):
        create_network(f"resnet10t={file}", num_classes=10)


def test_weights_of_another_architecture_are_named_with_counts(tmp_path: Path) -> None:
    file = save(tmp_path / "net.pt", timm.create_model("resnet10t", num_classes=7))
    with pytest.raises(
        UserError, match=r"net\.pt: the weights do not fit ResNet: 53 missing \(conv1\.weight, .*NAME=FILE"
    ):
        create_network(f"resnet18={file}")
    with pytest.raises(UserError, match="the weights do not fit VisionTransformer: "):
        create_network(f"test_vit={file}")
    with pytest.raises(UserError, match="the weights do not fit ResNet: 53 missing"):
        create_network(f"tv:resnet18={file}")


def test_a_head_of_the_wrong_width_is_named_with_both_shapes(tmp_path: Path) -> None:
    net = timm.create_model("resnet10t", num_classes=7)
    net.fc = nn.Linear(100, 7)
    file = save(tmp_path / "net.pt", net)
    with pytest.raises(UserError, match=r"1 of another shape \(fc\.weight \(7, 100\) for \(7, 512\)\)"):
        create_network(f"resnet10t={file}")


def test_a_checkpoint_in_its_authors_format_is_converted_as_timm_does(tmp_path: Path) -> None:
    net = timm.create_model("test_convnext", num_classes=5)
    original = {}
    for name, tensor in net.state_dict().items():
        for ours, theirs in (
            (r"stem.", "downsample_layers.0."),
            ("head.fc.", "head."),
            ("head.norm.", "norm."),
            (".conv_dw.", ".dwconv."),
            (".mlp.fc1.", ".pwconv1."),
            (".mlp.fc2.", ".pwconv2."),
        ):
            name = name.replace(ours, theirs)  # noqa: PLW2901
        if name.startswith("stages."):
            _, stage, kind, *rest = name.split(".")
            name = ".".join(  # noqa: PLW2901
                ["stages", stage, *rest] if kind == "blocks" else ["downsample_layers", stage, *rest]
            )
        original[name] = tensor
    assert original.keys() != net.state_dict().keys()
    torch.save({"model": original}, tmp_path / "convnext.pth")
    network = create_network(f"test_convnext={tmp_path / 'convnext.pth'}")
    assert state_sha256(network.module) == state_sha256(net)
    assert network.num_classes == 5


def test_a_file_that_describes_itself_is_rebuilt_from_its_path_alone(tmp_path: Path) -> None:
    config = PixelConfig(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", 1.0)
    arguments = {"img_size": 32, "patch_size": 8}
    net = timm.create_model("test_vit", num_classes=10, **arguments)
    file = save(tmp_path / "model.safetensors", net, network_metadata("test_vit", config, arguments))
    network = create_network(str(file))
    assert network.config == config
    assert network.num_classes == 10
    assert network.module(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert state_sha256(network.module) == state_sha256(net)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_args", "[1]", "model_args that are no JSON object"),
        ("model_args", "{", "model_args that are no JSON object"),
        ("model_args", '{"checkpoint_path": "x.pt"}', "may not set checkpoint_path"),
        ("model_args", '{"depth_of_time": 3}', "cannot be used .TypeError: .*depth_of_time"),
        ("pixels", "{}", "does not describe a preprocessing"),
        ("pixels", '{"input_size": [32, 64]}', "only square inputs"),
    ],
)
def test_metadata_that_makes_no_sense_is_one_line_that_names_the_file(
    tmp_path: Path, field: str, value: str, message: str
) -> None:
    net = timm.create_model("resnet10t", num_classes=2)
    file = save(tmp_path / "model.safetensors", net, {"architecture": "resnet10t", field: value})
    with pytest.raises(UserError, match=message) as caught:
        create_network(str(file))
    assert str(file) in str(caught.value)


def test_a_torchvision_network_comes_with_the_preprocessing_of_its_weights() -> None:
    network = create_network("tv:resnet18", weights="scratch", num_classes=7)
    assert network.config == PixelConfig(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear", 224 / 256)
    assert network.num_classes == 7
    assert network.module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    newer = create_network("tv:mobilenet_v3_large.IMAGENET1K_V2", weights="scratch")
    assert newer.config.crop_pct == 224 / 232


def test_a_torchvision_file_is_loaded_with_the_classes_of_its_head(tmp_path: Path) -> None:
    saved = torchvision_models.mobilenet_v3_small(num_classes=6)
    file = save(tmp_path / "net.safetensors", saved)
    network = create_network(f"tv:mobilenet_v3_small={file}")
    assert network.num_classes == 6
    assert state_sha256(network.module) == state_sha256(saved)


def test_published_torchvision_weights_in_the_cache_make_the_network_offline(
    empty_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = torchvision_models.squeezenet1_1()
    folder = empty_caches / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file = save(folder / "net.pth", saved)
    file = file.rename(folder / f"net-{sha256_file(file)[:8]}.pth")
    entry = torchvision_models.get_model_weights("squeezenet1_1")["IMAGENET1K_V1"]
    monkeypatch.setattr(entry.value, "url", f"https://example.invalid/{file.name}")
    network = create_network("tv:squeezenet1_1", offline=True)
    assert state_sha256(network.module) == state_sha256(saved)
    assert network.weights_sha256 == sha256_file(file)
    assert network.num_classes == 1000


def test_a_hub_repository_in_the_cache_is_built_from_its_own_description(place_on_hub: Callable[..., Path]) -> None:
    net = timm.create_model("test_vit", num_classes=5, img_size=64)
    description = {
        "architecture": "test_vit",
        "num_classes": 5,
        "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.1, 0.2, 0.3], "crop_pct": 1.0, "num_classes": 5},
        "model_args": {"img_size": 64},
    }
    place_on_hub("acme/tiny", net, description)
    network = create_network("hub:acme/tiny", offline=True)
    assert (network.num_classes, network.config.input_size, network.config.mean) == (5, 64, (0.1, 0.2, 0.3))
    assert network.weights_source == "cache: acme/tiny"
    assert state_sha256(network.module) == state_sha256(net)
    assert create_network("hub:acme/tiny", weights="scratch", offline=True).weights_source == "scratch"


def test_a_hub_repository_that_is_no_timm_network_is_the_users_error(place_on_hub: Callable[..., Path]) -> None:
    place_on_hub("acme/other", nn.Linear(1, 1), {"architectures": ["ViTForImageClassification"]})
    with pytest.raises(UserError, match=r"hub:acme/other: .*not a timm network"):
        create_network("hub:acme/other", offline=True)
    place_on_hub("acme/future", nn.Linear(1, 1), {"architecture": "net_of_2040", "pretrained_cfg": {}})
    with pytest.raises(UserError, match=r"hub:acme/future: .*not a timm network"):
        create_network("hub:acme/future", offline=True)


FACTORY = """
from torch import nn

def small(num_classes=4, width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

def described():
    net = small()
    net.pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.5, 0.5, 0.5), "interpolation": "bilinear"}
    return net

def broken():
    return 1 / 0

def nothing():
    return "a network"
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working folder, under a name no other test uses."""
    name = f"nets_{os.getpid()}_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    return f"py:{name}"


def test_a_factory_in_the_working_folder_makes_the_network_as_it_comes(factory: str) -> None:
    network = create_network(f"{factory}:small", num_classes=6, width=5)
    assert (network.num_classes, network.weights_source) == (6, "factory")
    assert network.weights_sha256 == state_sha256(network.module)
    assert network.config.input_size == 224
    described = create_network(f"{factory}:described")
    assert described.config == PixelConfig(48, (0.5,) * 3, IMAGENET_STD, "bilinear", 0.875)


def test_a_factory_takes_the_weights_of_a_file(factory: str, tmp_path: Path) -> None:
    first = create_network(f"{factory}:small")
    file = save(tmp_path / "net.pt", first.module)
    assert state_sha256(create_network(f"{factory}:small={file}").module) == first.weights_sha256
    with pytest.raises(UserError, match=r"3 of another shape \(0\.weight"):
        create_network(f"{factory}:small={file}", width=9)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("broken", "the function failed .ZeroDivisionError: division by zero."),
        ("nothing", "the function returned a str"),
        ("missing", "has no function 'missing'"),
    ],
)
def test_a_factory_that_fails_is_one_line(factory: str, function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_network(f"{factory}:{function}")


def test_a_factory_that_cannot_be_imported_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no_such_module cannot be imported \(ModuleNotFoundError: "):
        create_network("py:no_such_module:f")


def test_published_weights_cannot_be_asked_of_a_file_or_a_factory(tmp_path: Path) -> None:
    file = save(tmp_path / "net.pt", nn.Linear(1, 1))
    for spec in (f"resnet18={file}", "py:a.b:c"):
        with pytest.raises(UserError, match="has no published weights"):
            create_network(parse_network(spec), weights="pretrained")


def test_metadata_is_json_of_plain_values() -> None:
    metadata = network_metadata("resnet18", PixelConfig(32, (0.5,), (0.5,)))
    assert metadata["architecture"] == "resnet18"
    assert json.loads(metadata["model_args"]) == {}
    assert json.loads(metadata["pixels"])["input_size"] == 32
