"""What a training starts from: every loaded tensor is the file's, and what is not loaded is named."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from timm.layers import DropPath
from timm.models.vision_transformer import resample_abs_pos_embed
from torch import Tensor, nn
from torchvision import models as torchvision_models

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.models.finetuning import set_constant_drop_path, starting_network
from vtk_cli.models.weights import NoWeights
from vtk_cli.models.zoo import Network, PixelConfig, network_metadata

VIT = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def start(spec: str, weights: str | Path, **changes: Any) -> tuple[Network, list[str]]:
    """A network for 5 classes at 32 pixels, unless told otherwise."""
    options: dict[str, Any] = {"num_classes": 5, "model_args": {}, "img_size": 32, "console": Console()}
    return starting_network(spec, weights=weights, **options | changes)


def vit(classes: int = 7, name: str = VIT, **changes: Any) -> nn.Module:
    torch.manual_seed(1)
    network: nn.Module = timm.create_model(name, num_classes=classes, **{"img_size": 32, **SMALL, **changes})
    return network.eval()


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def images(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def assert_loaded_but(names: list[str], network: nn.Module, state: dict[str, Tensor]) -> None:
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]) == (name not in names), name


def test_scratch_is_random_from_torchs_generator_with_the_classes_of_the_training() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(4)
        network, made_anew = start(VIT, "scratch", model_args=SMALL)
        assert made_anew == []
        networks.append(network)
    assert (networks[0].num_classes, networks[0].config.input_size, networks[0].module.training) == (5, 32, False)
    assert networks[0].weights_sha256 == networks[1].weights_sha256
    assert networks[0].module(images()).shape == (2, 5)


def test_a_classifier_of_other_classes_is_new_and_everything_else_is_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = vit(7)
    file = save(tmp_path / "vit.pt", saved.state_dict())
    torch.manual_seed(9)
    network, made_anew = start(VIT, file, model_args=SMALL)
    assert made_anew == ["head.weight", "head.bias"]
    assert_loaded_but(made_anew, network.module, saved.state_dict() | {"head.weight": images(), "head.bias": images()})
    torch.manual_seed(9)
    scratch, _ = start(VIT, "scratch", model_args=SMALL)
    assert torch.equal(network.module.head.weight, scratch.module.head.weight)  # type: ignore[union-attr]
    assert network.model_args == {**SMALL, "img_size": 32}
    assert (network.weights_source, network.weights_sha256) == (f"file: {file}", sha256_file(file))
    assert capsys.readouterr().err.splitlines() == [
        f"weights from file: {file}: 7 classes there, 5 here; reinitialised: head.weight, head.bias"
    ]


def test_a_classifier_of_as_many_classes_is_loaded_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = vit(5)
    network, made_anew = start(VIT, save(tmp_path / "vit.pt", saved.state_dict()), model_args=SMALL)
    assert made_anew == []
    assert torch.equal(network.module(images()), saved(images()))
    assert capsys.readouterr().err == ""


def test_published_weights_get_a_new_classifier_too(
    place_on_hub: Callable[..., Path], tiny_network: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    place_on_hub("timm/test_vit.r160_in1k", tiny_network)
    network, made_anew = start("test_vit", "pretrained", img_size=None, num_classes=3)
    assert made_anew == ["head.weight", "head.bias"]
    assert (network.num_classes, network.config.input_size) == (3, 160)
    features = network.module.forward_features(images(160))  # type: ignore[operator]
    assert torch.equal(features, tiny_network.eval().forward_features(images(160)))  # type: ignore[operator]
    assert "1000 classes there, 3 here" in capsys.readouterr().err


def test_published_weights_that_are_not_here_are_an_error(empty_caches: Path) -> None:
    with pytest.raises(NoWeights, match="no pretrained weights on this machine"):
        start("resnet50", "pretrained", img_size=None)


@pytest.mark.parametrize("side", [32, 48])
def test_a_checkpoint_of_deit_3_is_read_and_its_position_embedding_resized(side: int, tmp_path: Path) -> None:
    """The authors' names, `gamma_1`, beside the state of their training."""
    saved = vit(5, "deit3_small_patch16_224", init_values=0.1)
    theirs = {re.sub(r"ls([12])\.gamma", r"gamma_\1", name): value for name, value in saved.state_dict().items()}
    assert "blocks.0.gamma_1" in theirs
    file = save(tmp_path / "checkpoint.pth", {"model": theirs, "epoch": 3, "args": argparse.Namespace(lr=1.0)})
    network, made_anew = start(
        "deit3_small_patch16_224", file, model_args={**SMALL, "init_values": 1e-4}, img_size=side
    )
    assert made_anew == []
    grid = side // 8
    expected = saved.state_dict()
    if side != 32:
        expected["pos_embed"] = resample_abs_pos_embed(expected["pos_embed"], [grid, grid], num_prefix_tokens=0)
    assert expected["pos_embed"].shape == (1, grid * grid, 32)
    assert_loaded_but([], network.module, expected)
    assert network.config.input_size == side


@pytest.mark.parametrize("has_decoder", [False, True])
def test_maes_pretraining_gets_a_classifier_and_a_last_normalisation(
    has_decoder: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With averaged features the normalisation of the tokens goes, and one of the average comes, new."""
    state = vit(0).state_dict()
    assert not any(name.startswith("head") for name in state)
    theirs = dict(state)
    if has_decoder:
        theirs |= {"mask_token": torch.zeros(1, 1, 16), "decoder_embed.weight": torch.zeros(16, 32)}
    file = save(tmp_path / "mae_pretrain.pth", {"model": theirs})
    network, made_anew = start(VIT, file, model_args={**SMALL, "global_pool": "avg"})
    assert made_anew == ["fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"]
    new = {"head.weight": images(), "head.bias": images(), "fc_norm.weight": images(), "fc_norm.bias": images()}
    assert_loaded_but(made_anew, network.module, state | new)
    assert torch.equal(network.module.fc_norm.weight, torch.ones(32))  # type: ignore[union-attr]
    err = capsys.readouterr().err
    assert "no classifier there; reinitialised: fc_norm.weight, fc_norm.bias, head.weight, head.bias" in err
    assert ("decoder_embed.weight" in err) == has_decoder
    assert "norm.weight, norm.bias" in err.partition("left out: ")[2]


def test_maes_pretraining_keeps_its_normalisation_where_the_class_token_is_read(tmp_path: Path) -> None:
    state = vit(0).state_dict()
    _, made_anew = start(VIT, save(tmp_path / "mae.pth", {"model": state}), model_args=SMALL)
    assert made_anew == ["head.weight", "head.bias"]


def test_a_checkpoint_of_swin_with_a_mask_token_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The authors downsample at the end of a stage, timm at the start of the next one; their buffers are not kept."""
    name, small = "swin_tiny_patch4_window7_224", {"embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2)}
    torch.manual_seed(0)
    saved = timm.create_model(name, num_classes=5, img_size=56, **small).eval()
    theirs = {
        key.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc.", "head."): value
        for key, value in saved.state_dict().items()
    }
    theirs |= {"mask_token": torch.zeros(1, 1, 16), "layers.0.blocks.1.attn_mask": torch.zeros(4, 49, 49)}
    file = save(tmp_path / "swin.pth", {"model": theirs})
    network, made_anew = start(name, file, model_args=small, img_size=56)
    assert made_anew == []
    assert torch.equal(network.module(images(56)), saved(images(56)))
    assert "left out: mask_token" in capsys.readouterr().err
    _, made_anew = start(name, file, model_args=small, img_size=56, num_classes=3)
    assert made_anew == ["head.fc.weight", "head.fc.bias"]


def test_a_checkpoint_of_timms_training_gives_its_averaged_weights_to_a_convnet_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    averaged, last = (timm.create_model("resnet10t", num_classes=7) for _ in range(2))
    content = {"state_dict": last.state_dict(), "state_dict_ema": averaged.state_dict(), "epoch": 9}
    network, made_anew = start("resnet10t", save(tmp_path / "last.pth.tar", content), img_size=48)
    assert made_anew == ["fc.weight", "fc.bias"]
    assert network.config.input_size == 48
    features = network.module.forward_features(images(48))  # type: ignore[operator]
    assert torch.equal(features, averaged.eval().forward_features(images(48)))


def test_a_torchvision_network_gets_a_new_classifier(tmp_path: Path) -> None:
    saved = torchvision_models.resnet18(num_classes=7)
    network, made_anew = start("tv:resnet18", save(tmp_path / "tv.pt", saved.state_dict()))
    assert made_anew == ["fc.weight", "fc.bias"]
    assert network.module(images()).shape == (2, 5)
    assert network.config.input_size == 32


def test_a_torchvision_transformer_is_built_at_the_size_that_was_asked_for() -> None:
    network, _ = start("tv:vit_b_16", "scratch", img_size=48)
    assert network.module(images(48)).shape == (2, 5)


def test_a_run_goes_on_from_the_folder_of_another_whose_file_knows_its_network(tmp_path: Path) -> None:
    """Trained at 32 pixels, gone on with at 48: the file's constructor arguments count, the size is the new one."""
    saved = vit(5)
    metadata = network_metadata(VIT, PixelConfig(32, (0.1,) * 3, (0.2,) * 3), {"img_size": 32, **SMALL})
    safetensors.torch.save_file(saved.state_dict(), tmp_path / "model.safetensors", metadata)
    same, made_anew = start(VIT, tmp_path, img_size=None)
    assert made_anew == []
    assert torch.equal(same.module(images()), saved(images()))
    assert same.config == PixelConfig(32, (0.1,) * 3, (0.2,) * 3)
    for spec, weights in ((VIT, tmp_path), (str(tmp_path / "model.safetensors"), "scratch")):
        larger, made_anew = start(spec, weights, img_size=48, num_classes=3)
        assert made_anew == ["head.weight", "head.bias"]
        assert larger.module(images(48)).shape == (2, 3)
        assert larger.config == PixelConfig(48, (0.1,) * 3, (0.2,) * 3)


def test_weights_of_another_network_are_refused_with_counts(tmp_path: Path) -> None:
    file = save(tmp_path / "net.pt", vit(7, depth=3).state_dict())
    with pytest.raises(
        UserError, match=r"net\.pt: the weights do not fit VisionTransformer: 12 unexpected \(blocks\.2"
    ):
        start(VIT, file, model_args=SMALL)
    with pytest.raises(UserError, match=r"net\.pt: the weights do not fit ResNet: \d+ missing"):
        start("resnet10t", file)
    with pytest.raises(UserError, match="no such weight file"):
        start(VIT, tmp_path / "absent.pt")


def test_a_headless_file_of_another_network_is_refused_as_well(tmp_path: Path) -> None:
    """timm itself would load what fits and say nothing."""
    file = save(tmp_path / "net.pt", vit(0, depth=1).state_dict())
    with pytest.raises(UserError, match=r"the weights do not fit VisionTransformer: 12 missing"):
        start(VIT, file, model_args=SMALL)


def test_arguments_the_constructor_does_not_take_are_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"resnet10t: cannot be built with .*'depth': 3"):
        start("resnet10t", "scratch", model_args={"depth": 3})
    with pytest.raises(UserError, match=r"cannot be built with .*'embed_dim': 33"):
        start(VIT, "scratch", model_args={**SMALL, "embed_dim": 33})


def rates(network: nn.Module) -> list[float]:
    return [part.drop_prob for part in network.modules() if isinstance(part, DropPath)]


@pytest.mark.parametrize(
    ("name", "arguments", "branches"),
    [
        (VIT, {"img_size": 32, "embed_dim": 32, "depth": 3, "num_heads": 2}, 6),
        ("deit3_small_patch16_224", {"img_size": 32, "embed_dim": 32, "depth": 3, "num_heads": 2}, 6),
        ("swin_tiny_patch4_window7_224", {"img_size": 56, "embed_dim": 16, "depths": (2, 1), "num_heads": (1, 2)}, 6),
        ("convnext_atto", {"depths": (1, 1, 2, 1), "dims": (8, 8, 8, 8)}, 5),
        ("resnet18", {"zero_init_last": False}, 8),
    ],
)
@pytest.mark.parametrize("before", [0.0, 0.3])
def test_stochastic_depth_can_be_the_same_in_every_branch(
    name: str, arguments: dict[str, Any], branches: int, before: float
) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, drop_path_rate=before, num_classes=3, **arguments).eval()
    side = arguments.get("img_size", 64)
    logits, names = network(images(side)), list(network.state_dict())
    assert set_constant_drop_path(network, 0.4) == branches
    assert rates(network) == [0.4] * branches
    assert torch.equal(network(images(side)), logits)  # still in eval mode: nothing is dropped
    assert list(network.state_dict()) == names
    assert not torch.equal(*(network.train()(images(side)) for _ in range(2)))
    set_constant_drop_path(network, 0.0)
    assert rates(network) == [0.0] * branches


def test_a_network_without_residual_branches_has_no_stochastic_depth() -> None:
    with pytest.raises(UserError, match="--drop-path: VGG has no stochastic depth"):
        set_constant_drop_path(timm.create_model("vgg11", num_classes=2), 0.1)
