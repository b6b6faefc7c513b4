"""The video networks: sizes as published, slow references, and what does not change when frames change places."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.networks.backbone import VideoTransformer
from vtk_cli.video_pretrain.networks.building import create_backbone
from vtk_cli.video_pretrain.networks.catalog import BACKBONES
from vtk_cli.video_pretrain.networks.image_weights import copy_image_vit
from vtk_cli.video_pretrain.networks.motionformer import TrajectoryAttention
from vtk_cli.video_pretrain.networks.vit_shape import nearest_times
from vtk_cli.video_pretrain.networks.xvit import FrameAttention, shifted_in_time

TINY = {"width": 24, "depth": 2, "heads": 3, "patch": 4, "mlp": 40}
SIDE, FRAMES = 12, 4


def transformer(family: str, frames: int = FRAMES, **arguments: object) -> VideoTransformer:
    torch.manual_seed(0)
    made = create_backbone(family, frames=frames, side=SIDE, start="torch", **TINY, **arguments)
    assert isinstance(made, VideoTransformer)
    return made.eval()


def image_vit() -> VisionTransformer:
    torch.manual_seed(1)
    made = VisionTransformer(
        img_size=SIDE, patch_size=4, embed_dim=24, depth=2, num_heads=3, mlp_ratio=40 / 24, num_classes=0
    )
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return made.eval()


def clips(batch: int = 2, frames: int = FRAMES) -> Tensor:
    return torch.randn(batch, 3, frames, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def count(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("slow_r50", 32_454_096),  # PySlowFast says 32.45 M
        ("r3d_18", 33_371_472),  # torchvision
        ("r2plus1d_18", 31_505_325),
        ("s3d", 8_320_048),
        ("mvit_v2_s", 34_537_744),
    ],
)
def test_convolutional_networks_have_the_published_number_of_parameters(name, published):
    """With a classifier of the 400 classes of Kinetics."""
    with torch.device("meta"):
        network = create_backbone(name, frames=16, side=224)
    assert count(network) + 400 * network.feature_dim + 400 == published


def test_transformers_have_a_vits_parameters_and_those_of_time():
    """C wide, L blocks: attention 4 C^2 + 4 C, a linear layer C^2 + C, a norm 2 C."""
    C, L, T = 768, 12, 8
    vit = count(timm.create_model("vit_base_patch16_224", num_classes=0))
    attention, linear, norm = 4 * C * C + 4 * C, C * C + C, 2 * C
    mlp = 8 * C * C + 5 * C
    extra = {
        "timesformer": L * (attention + linear + norm) + T * C,
        "motionformer": L * 3 * linear + linear + T * C,
        "xvit": T * C + C + (attention - 3 * C + mlp + 2 * norm) + norm + linear,
    }
    for name, more in extra.items():
        with torch.device("meta"):
            assert count(create_backbone(name, frames=T, side=224)) == vit + more, name
    assert round((vit + extra["timesformer"]) / 1e6) == 121  # arXiv 2102.05095, Table 2: 121.4 M with its classes


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_as_wide_as_said(name):
    entry = BACKBONES[name]
    side = 32 if entry.side > 32 else entry.side
    small = {**TINY, "patch": 16} if entry.image_vit else {}
    network = create_backbone(name, frames=6, side=side, **small).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 3, 6, side, side)).shape == (2, network.feature_dim)


def test_slow_keeps_every_frame_and_sees_time_in_its_last_two_stages_alone():
    network = create_backbone("slow_r18", frames=4, side=32)
    assert network.maps(torch.randn(1, 3, 4, 64, 64)).shape == (1, 512, 4, 2, 2)
    shapes = {name: weight.shape for name, weight in network.named_parameters() if weight.ndim == 5}
    temporal = {name.split(".")[0] for name, shape in shapes.items() if shape[2] > 1}
    assert temporal == {"s4", "s5"}
    with torch.device("meta"):
        fifty = create_backbone("slow_r50", frames=4, side=32)
    kernels = {tuple(w.shape[2:]) for name, w in fifty.named_parameters() if name.startswith("s5") and w.ndim == 5}
    assert kernels == {(3, 1, 1), (1, 3, 3), (1, 1, 1)}


@torch.no_grad()
def test_timesformer_without_time_is_the_image_vit_of_each_frame():
    """For copies of one frame; and whatever the order of frames, its class feature is the same."""
    network, image = transformer("timesformer"), image_vit()
    kept = copy_image_vit(network, image, "here")
    new = {f"blocks.{block}.temporal_fc.{part}" for block in (0, 1) for part in ("weight", "bias")}
    assert set(kept) == {"time_embed", *new}
    frame = clips()[:, :, 0]
    feature, tokens = network.tokens(frame[:, :, None].expand(-1, -1, FRAMES, -1, -1))
    expected = image.forward_features(frame)
    torch.testing.assert_close(feature, expected[:, 0], atol=1e-5, rtol=1e-4)
    for t in range(FRAMES):
        torch.testing.assert_close(tokens[:, t], expected[:, 1:], atol=1e-5, rtol=1e-4)
    order = torch.tensor([2, 0, 3, 1])
    one, other = network.tokens(clips()), network.tokens(clips()[:, :, order])
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one[1][:, order], other[1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["timesformer", "motionformer"])
def test_without_temporal_positions_frames_may_change_places_and_with_them_not(family):
    network = transformer(family, **({"zero_temporal": False} if family == "timesformer" else {}))
    order = torch.tensor([2, 0, 3, 1])
    one, other = network.tokens(clips()), network.tokens(clips()[:, :, order])
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one[1][:, order], other[1], atol=1e-5, rtol=1e-4)
    times = network.time_embed if family == "timesformer" else network.temp_embed
    times.normal_()
    assert (network(clips()) - network(clips()[:, :, order])).abs().max() > 1e-3


@torch.no_grad()
def test_xvit_without_shift_is_the_image_vit_of_each_frame_and_with_it_sees_its_neighbours():
    network, image = transformer("xvit", shifted_blocks=()), image_vit()
    copy_image_vit(network, image, "here")
    found = network.base_model(clips())
    expected = image.forward_features(clips().transpose(1, 2).flatten(0, 1)).unflatten(0, (2, FRAMES))
    torch.testing.assert_close(found[0], expected[:, :, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], expected[:, :, 1:], atol=1e-5, rtol=1e-4)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(network(clips()), network(clips()[:, :, order]), atol=1e-5, rtol=1e-4)
    shifting = transformer("xvit", shifted_blocks=(0,))
    changed = clips()
    changed[:, :, 0] += 1.0
    difference = (shifting.base_model(clips())[1] - shifting.base_model(changed)[1]).abs().amax((0, 2, 3))
    assert (difference[:2] > 1e-4).all()
    assert (difference[2:] < 1e-5).all()  # one block reaches one frame


def test_the_shift_takes_a_quarter_from_the_next_frame_and_a_quarter_from_the_last():
    tokens = torch.arange(3.0).view(1, 3, 1, 1).expand(1, 3, 2, 8) + 1
    shifted = shifted_in_time(tokens)
    assert shifted[0, :, 0].tolist() == [
        [2, 2, 0, 0, 1, 1, 1, 1],
        [3, 3, 1, 1, 2, 2, 2, 2],
        [0, 0, 2, 2, 3, 3, 3, 3],
    ]
    assert torch.equal(shifted[:, :, 0], shifted[:, :, 1])


@torch.no_grad()
def test_shifted_attention_is_its_slow_reference():
    torch.manual_seed(0)
    attention = FrameAttention(8, 2, qkv_bias=True, shifts=True)
    tokens = torch.randn(2, 3, 5, 8)
    q, k, v = attention.qkv(tokens).chunk(3, -1)
    for b in range(2):
        for t in range(3):
            rows = []
            for part in (k, v):
                row = part[b, t].clone()
                row[:, :2] = part[b, t + 1, :, :2] if t < 2 else 0
                row[:, 2:4] = part[b, t - 1, :, 2:4] if t else 0
                rows.append(row)
            heads = []
            for h in (slice(0, 4), slice(4, 8)):
                share = (q[b, t][:, h] @ rows[0][:, h].T / 2).softmax(1)
                heads.append(share @ rows[1][:, h])
            torch.testing.assert_close(attention(tokens)[b, t], attention.proj(torch.cat(heads, 1)))


@torch.no_grad()
@pytest.mark.parametrize("as_they_are", [True, False])
def test_trajectory_attention_is_its_slow_reference(as_they_are):
    """Equations 3 to 5 of arXiv 2106.05392, patch by patch."""
    torch.manual_seed(0)
    T, N, C, H = 3, 4, 6, 2
    d = C // H
    attention = TrajectoryAttention(C, H, values_as_they_are=as_they_are)
    tokens = torch.randn(1, 1 + T * N, C)
    q, k, v = attention.qkv(tokens)[0].chunk(3, -1)
    rows = [torch.cat([(q[0, h] @ k[:, h].T / math.sqrt(d)).softmax(0) @ v[:, h] for h in parts(C, H)])]
    for s in range(T * N):
        steps = []
        for t in range(T):
            frame = slice(1 + t * N, 1 + (t + 1) * N)
            heads = [(q[1 + s, h] @ k[frame, h].T / math.sqrt(d)).softmax(0) @ v[frame, h] for h in parts(C, H)]
            steps.append(torch.cat(heads))
        y = torch.stack(steps)
        query = attention.proj_q(y[s // N])
        keys, values = attention.proj_kv(y).chunk(2, -1)
        values = y if as_they_are else values
        rows.append(
            torch.cat([(query[h] @ keys[:, h].T / math.sqrt(d)).softmax(0) @ values[:, h] for h in parts(C, H)])
        )
    torch.testing.assert_close(attention(tokens, T)[0], attention.proj(torch.stack(rows)))


def parts(width: int, heads: int) -> list[slice]:
    size = width // heads
    return [slice(head * size, (head + 1) * size) for head in range(heads)]


def test_temporal_positions_for_other_lengths_are_the_nearest():
    times = torch.arange(4.0).view(1, 4, 1)
    assert nearest_times(times, 4) is times
    assert nearest_times(times, 8).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert nearest_times(times, 2).flatten().tolist() == [0, 2]
    assert nearest_times(times, 1).flatten().tolist() == [0]


@torch.no_grad()
@pytest.mark.parametrize("family", ["timesformer", "motionformer", "xvit"])
def test_transformers_take_clips_of_other_lengths(family):
    network = transformer(family)
    feature, tokens = network.tokens(clips(frames=6))
    assert feature.shape == (2, 24)
    assert tokens.shape == (2, 6, 9, 24)
    assert torch.equal(network(clips()), network.tokens(clips())[0])


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("slow_r5", {}, "slow_r50"),
        ("timesformer:resnet50", {}, "no plain ViT"),
        ("timesformer:nothing_at_all", {}, ""),
        ("timesformer_tiny", {"side": 25}, "do not fill frames of 25"),
        ("timesformer_tiny", {"heads": 3}, "3 heads do not divide"),
        ("timesformer_tiny", {"widht": 3}, "width"),
        ("slow_r50", {"width": 3}, "takes no argument"),
        ("s3d", {"side": 16}, "cannot halve"),
        ("s3d", {"frames": 4, "side": 32}, "at least 5 x 32 x 32"),
        ("mvit_v2_s", {"side": 100}, "divisible by 32"),
        ("c3d_tiny", {"frames": 0}, "no clips of 0"),
    ],
)
def test_networks_that_cannot_be_are_refused(name, given, said):
    with pytest.raises(UserError) as caught:
        create_backbone(name, **({"frames": 8, "side": 24} | given))
    assert said in str(caught.value)
