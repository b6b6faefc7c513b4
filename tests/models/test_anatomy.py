from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision import models as torchvision_models

from vtk_cli.models import anatomy
from vtk_cli.models.names import PAPER69


def on_paper(name: str) -> nn.Module:
    """A network without memory behind its parameters: quick to make at any size."""
    with torch.device("meta"):
        return torchvision_models.get_model(name[3:]) if name.startswith("tv:") else timm.create_model(name)


@pytest.mark.parametrize(
    ("name", "notation", "pools"),
    [
        ("resnet50", "7s2", True),
        ("resnet10t", "3s2/3/3", True),
        ("tv:resnet18", "7s2", True),
        ("vgg11", "3s1", True),
        ("tv:vgg16", "3s1/3", True),
        ("tv:alexnet", "11s4", True),
        ("densenet121", "7s2", True),
        ("inception_v3", "3s2/3/3", True),
        ("hrnet_w18_small", "3s2/3s2", False),
        ("dla34", "7s1", False),
        ("xception41", "3s2/3", False),
        ("nfnet_l0", "3s2/3/3/3s2", False),
        ("convnext_tiny", "4s4", False),
        ("tv:convnext_tiny", "4s4", False),
        ("convmixer_768_32", "7s7", False),
        ("efficientnet_b0", "3s2", False),
        ("mobilenetv3_small_050", "3s2", False),
        ("vit_tiny_patch16_224", "16s16", False),
        ("tv:vit_b_16", "16s16", False),
        ("vit_small_r26_s32_224", "7s2", True),
        ("swin_tiny_patch4_window7_224", "4s4", False),
        ("tv:swin_t", "4s4", False),
        ("xcit_nano_12_p8_224", "3s2/3s2/3s2", False),
        ("twins_svt_small", "4s4", False),
        ("crossvit_9_240", "16s16", False),
        ("pit_ti_224", "16s8", False),
        ("visformer_tiny", "7s2", False),
        ("levit_128s", "3s2/3s2/3s2/3s2", False),
        ("coatnet_0_224", "3s2/3", False),
    ],
)
def test_the_stem_is_what_comes_before_the_first_block(name: str, notation: str, pools: bool) -> None:
    network = on_paper(name)
    assert (anatomy.stem_notation(network), anatomy.stem_pools(network)) == (notation, pools)


@pytest.mark.parametrize(
    ("name", "hierarchical"),
    [
        ("resnet10t", True),
        ("swin_tiny_patch4_window7_224", True),
        ("nest_tiny_jx", True),
        ("hiera_tiny_224", True),
        ("tv:swin_t", True),
        ("vit_tiny_patch16_224", False),
        ("tv:vit_b_16", False),
        ("vit_small_r26_s32_224", False),
        ("resmlp_12_224", False),
        ("xcit_nano_12_p8_224", False),
        ("convmixer_768_32", False),
    ],
)
def test_a_network_is_hierarchical_when_it_downsamples_after_its_stem(name: str, hierarchical: bool) -> None:
    assert anatomy.is_hierarchical(on_paper(name)) is hierarchical


@pytest.mark.parametrize(
    ("name", "norms", "acts"),
    [
        ("resnet50", ["BN"], ["ReLU"]),
        ("resnet50_gn", ["GN"], ["ReLU"]),
        ("resnetv2_50d_evos", ["EvoNorm"], []),
        ("nf_resnet50", [], ["ReLU"]),
        ("resmlp_12_224", ["Affine transform"], ["GeLU"]),
        ("gcresnet50t", ["LN", "BN"], ["ReLU"]),
        ("cspdarknet53", ["BN"], ["Leaky ReLU"]),
        ("rexnet_100", ["BN"], ["ReLU", "SiLU", "ReLU6"]),
        ("mobilenetv3_small_050", ["BN"], ["ReLU", "HardSwish"]),
        ("visformer_tiny", ["BN"], ["GeLU", "ReLU"]),
        ("vit_small_r26_s32_224", ["LN", "GN"], ["GeLU", "ReLU"]),
    ],
)
def test_normalisations_and_activations_are_those_of_the_layers(name: str, norms: list[str], acts: list[str]) -> None:
    network = on_paper(name)
    assert anatomy.normalizations(network) == norms
    assert anatomy.activations(network) == acts


@pytest.mark.parametrize(
    ("name", "kinds", "location"),
    [
        ("resnet50", [], ""),
        ("seresnet50", ["SE"], "End"),
        ("efficientnet_b0", ["SE"], "Middle"),
        ("tv:efficientnet_b0", ["SE"], "Middle"),
        ("regnety_002", ["SE"], "Middle"),
        ("eca_nfnet_l0", ["ECA"], "End"),
        ("eca_resnet33ts", ["ECA"], "Middle"),
        ("ecaresnet26t", ["ECA"], "End"),
        ("ese_vovnet19b_dw", ["ESE"], "End"),
        ("gcresnet33ts", ["GCA"], "Middle"),
        ("resnest14d", [""], ""),
    ],
)
def test_channel_attention_is_found_with_its_place_in_the_block(name: str, kinds: list[str], location: str) -> None:
    network = on_paper(name)
    assert anatomy.channel_attention(network) == kinds
    assert anatomy.channel_attention_location(network) == location


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("botnet26t_256", ["BoT"]),
        ("halonet26t", ["Halo"]),
        ("lambda_resnet26t", ["Lambda"]),
        ("lamhalobotnet50ts_256", ["Lambda", "Halo", "BoT"]),
        ("vit_tiny_patch16_224", []),
    ],
)
def test_self_attention_in_place_of_convolutions_is_named(name: str, kinds: list[str]) -> None:
    assert anatomy.self_attention_2d(on_paper(name)) == kinds


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("resnet10t", "GAP"),
        ("vit_tiny_patch16_224", "CLS token"),
        ("tv:vit_b_16", "CLS token"),
        ("deit_tiny_distilled_patch16_224", "CLS token"),
        ("beit_base_patch16_224", "GAP"),
        ("vit_base_patch16_siglip_224", "Attention"),
        ("swin_tiny_patch4_window7_224", "GAP"),
        ("cait_xxs24_224", "CLS token"),
    ],
)
def test_the_final_pooling_is_what_the_classifier_sees(name: str, pooling: str) -> None:
    assert anatomy.final_pooling(on_paper(name)) == pooling


def test_depthwise_and_grouped_convolutions_are_told_apart_by_the_channels_of_a_group() -> None:
    plain, one_channel = nn.Conv2d(8, 8, 3), nn.Conv2d(1, 8, 3)
    depthwise, grouped = nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(8, 8, 3, groups=4)
    assert not anatomy.has_depthwise(nn.Sequential(plain, one_channel))
    assert not anatomy.has_grouped(nn.Sequential(plain, one_channel, depthwise))
    assert anatomy.has_depthwise(nn.Sequential(plain, depthwise))
    assert anatomy.has_grouped(nn.Sequential(plain, grouped))
    assert not anatomy.has_depthwise(nn.Sequential(plain, grouped))


def test_the_papers_networks_have_their_published_family() -> None:
    nothing = nn.Identity()
    for network in PAPER69:
        assert anatomy.family(nothing, network.timm) == network.family


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("resnet18", "CNN"),
        ("tv:resnet18", "CNN"),
        ("repvit_m1", "CNN"),
        ("convnext_base", "CNN"),
        ("vit_base_patch16_224", "Transformer"),
        ("tv:vit_b_16", "Transformer"),
        ("test_vit", "Transformer"),
        ("swinv2_tiny_window8_256", "Transformer"),
        ("swin_s3_base_224", "NAS (TFM)"),
        ("mixer_b16_224", "MLP-Mixer"),
        ("efficientnet_b0.ra_in1k", "NAS (CNN)"),
        ("mobilenetv3_small_050", "NAS (CNN)"),
        ("tv:mobilenet_v3_small", "NAS (CNN)"),
        ("mobilenetv2_100", "CNN"),
        ("regnetz_b16", "NAS (CNN)"),
        ("maxvit_tiny_tf_224", "Hybrid"),
        ("vit_base_r50_s16_224", "Hybrid"),
        ("vit_base_resnet26d_224", "Hybrid"),
        ("mobilevit_s", "Hybrid"),
    ],
)
def test_known_names_have_a_family_whatever_the_modules(name: str, family: str) -> None:
    assert anatomy.family(nn.Identity(), name) == family


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("resnet10t", "CNN"),
        ("convnext_atto", "CNN"),
        ("halonet26t", "CNN"),
        ("vit_tiny_patch16_224", "Transformer"),
        ("swin_tiny_patch4_window7_224", "Transformer"),
        ("tv:vit_b_16", "Transformer"),
        ("resmlp_12_224", "MLP-Mixer"),
        ("coatnet_0_224", "Hybrid"),
        ("mobilevit_s", "Hybrid"),
    ],
)
def test_an_unknown_name_is_judged_by_its_convolutions_and_attention(name: str, family: str) -> None:
    assert anatomy.family(on_paper(name), "my own net") == family


def test_a_network_of_the_users_own_is_described_too() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(8, 8, 3, stride=2)
            self.act = nn.ReLU()
            self.conv2 = nn.Conv2d(8, 8, 1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 8, 5, stride=2)
            self.norm = nn.BatchNorm2d(8)
            self.pool = nn.MaxPool2d(2)
            self.block = Block()
            self.head = nn.Linear(8, 2)

    for net in (Net(), nn.Sequential(nn.Identity(), Net())):
        assert anatomy.stem_notation(net) == "5s2"
        assert anatomy.stem_pools(net)
        assert anatomy.is_hierarchical(net)
        assert anatomy.family(net, "mine") == "CNN"
    assert anatomy.stem_notation(nn.Linear(2, 2)) == "-"
    assert not anatomy.is_hierarchical(nn.Linear(2, 2))
