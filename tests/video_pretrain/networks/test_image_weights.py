"""Weights of image ViTs and of torchvision's video classifiers in our networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from timm.layers import resample_abs_pos_embed
from torch import nn
from torchvision.models import video

from vtk_cli.errors import UserError
from vtk_cli.models.weights import NoWeights
from vtk_cli.video_pretrain.networks.building import create_backbone
from vtk_cli.video_pretrain.networks.image_weights import start_from_published

SIDE = 32


@pytest.fixture(scope="module")
def image() -> nn.Module:
    """A plain ViT of timm: 6 blocks of width 64, 10 x 10 patches of 16 pixels, 1,000 classes."""
    torch.manual_seed(2)
    network: nn.Module = timm.create_model("test_vit")
    return network


@pytest.fixture
def image_file(image: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(image.state_dict(), path)
    return path


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.parametrize(
    ("family", "prefix", "new"),
    [
        ("timesformer", "", {"time_embed", "temporal_fc"}),
        ("motionformer", "", {"temp_embed", "attn.proj_q", "attn.proj_kv", "pre_logits.fc"}),
        ("xvit", "base_model.", {"temp_embed", "consensus"}),
    ],
)
def test_a_transformer_takes_every_weight_of_the_image_vit(family, prefix, new, image, image_file):
    """Its classifier apart; the positions as timm resizes them."""
    network = create_backbone(f"{family}:test_vit", frames=4, side=SIDE)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    start = start_from_published(network, f"{family}:test_vit", image_file)
    after = network.state_dict()
    expected = {name: tensor for name, tensor in image.state_dict().items() if not name.startswith("head.")}
    expected["pos_embed"] = resample_abs_pos_embed(expected["pos_embed"], [2, 2], num_prefix_tokens=1)
    for name, tensor in expected.items():
        assert torch.equal(after[prefix + name], tensor), name
    assert all(torch.equal(after[name], before[name]) for name in start.made_anew)
    assert {part for name in start.made_anew for part in new if part in name} == new
    assert all(any(part in name for part in new) for name in start.made_anew)
    assert start.source == f"file: {image_file}"
    assert start.pixels is not None


def test_timesformers_attention_over_time_starts_as_that_over_space_and_adds_nothing(image_file):
    network = create_backbone("timesformer:test_vit", frames=4, side=SIDE)
    start_from_published(network, "timesformer:test_vit", image_file)
    state = network.state_dict()
    copied = [name for name in state if ".temporal_attn." in name or ".temporal_norm1." in name]
    assert len(copied) == 6 * 6
    assert all(torch.equal(state[name], state[name.replace("temporal_", "")]) for name in copied)
    assert not state["time_embed"].any()
    assert not any(state[name].any() for name in state if "temporal_fc" in name)


def test_a_folder_with_a_model_is_as_good_as_its_file(image_file):
    network = create_backbone("xvit:test_vit", frames=4, side=SIDE)
    assert start_from_published(network, "xvit:test_vit", image_file.parent).source == f"file: {image_file}"


def test_an_image_vit_of_another_size_is_refused(image_file):
    network = create_backbone("timesformer:test_vit", frames=4, side=SIDE, depth=2)
    with pytest.raises(UserError, match="unexpected"):
        start_from_published(network, "timesformer:test_vit", image_file)


@pytest.mark.usefixtures("nothing_here")
@pytest.mark.parametrize("name", ["timesformer:test_vit", "r3d_18"])
def test_published_weights_that_are_not_here_are_not_looked_for_elsewhere_when_offline(name):
    with pytest.raises(NoWeights, match="downloads are off"):
        start_from_published(create_backbone(name, frames=4, side=SIDE), name, offline=True)


@pytest.mark.parametrize("name", ["c3d_tiny", "slow_r18", "timesformer_tiny"])
def test_networks_without_published_weights_say_so(name):
    with pytest.raises(UserError, match="no weights are published"):
        start_from_published(create_backbone(name, frames=8, side=24), name)


@pytest.mark.parametrize(
    ("name", "frames", "side"),
    [("r3d_18", 4, 32), ("s3d", 16, 224), pytest.param("mvit_v2_s", 16, 224, marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_torchvisions_weights_give_torchvisions_logits(name, frames, side, tmp_path):
    """From its own file, classifier and all; the classifier is then put behind our features."""
    torch.manual_seed(3)
    theirs = getattr(video, name)(weights=None).eval()
    path = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), path)
    ours = create_backbone(name, frames=frames, side=side).eval()
    start = start_from_published(ours, name, path)
    assert start.made_anew == ()
    clips = torch.randn(1, 3, frames, side, side)
    classifier = {"r3d_18": "fc", "s3d": "classifier.1", "mvit_v2_s": "head.1"}[name]
    layer = theirs.get_submodule(classifier)
    logits = nn.functional.linear(ours(clips), layer.weight.flatten(1), layer.bias)
    torch.testing.assert_close(logits, theirs(clips), atol=1e-4, rtol=1e-4)


def test_positions_of_mvit_for_other_clips_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(create_backbone("mvit_v2_s", frames=16, side=64).body.state_dict(), path)
    with pytest.raises(UserError, match="of another shape"):
        start_from_published(create_backbone("mvit_v2_s", frames=8, side=32), "mvit_v2_s", path)
