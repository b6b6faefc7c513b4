from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.segment.refine.configurations import MICRO, RESNET101, refine_config
from vtk_cli.segment.refine.network import (
    MaskRefineNet,
    MicroRefineNet,
    build_refine_network,
    input_channels,
    load_encoder,
    official_state,
)


@pytest.mark.parametrize(("classes", "count"), [(80, 77_111_490), (8, 76_885_698)])
def test_the_parameters_are_as_many_as_published(classes: int, count: int) -> None:
    with torch.device("meta"):
        network = MaskRefineNet(classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_coco_takes_85_channels_and_bdd100k_13() -> None:
    assert (input_channels(80), input_channels(8)) == (85, 13)


def test_logits_have_the_size_of_the_crops() -> None:
    network = MaskRefineNet(2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, input_channels(2), 64, 64)).shape == (1, 2, 64, 64)
        assert MicroRefineNet(2).eval()(torch.zeros(2, input_channels(2), 48, 48)).shape == (2, 2, 48, 48)


def test_every_parameter_of_the_micro_network_has_a_gradient_and_the_rough_mask_counts() -> None:
    torch.manual_seed(0)
    network = build_refine_network(MICRO, 3)
    crops = torch.randn(2, input_channels(3), 48, 48, requires_grad=True)
    network(crops)[:, 1].square().sum().backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in network.parameters())
    assert bool((crops.grad.abs().amax((0, 2, 3)) > 0).all())


def test_an_untrained_head_says_about_half_everywhere() -> None:
    with torch.inference_mode():
        logits = MicroRefineNet(2).eval()(torch.randn(1, input_channels(2), 48, 48))
    assert (logits[:, 1] - logits[:, 0]).abs().max() < 1


def test_the_encoder_takes_a_classifiers_weights_all_but_the_first_convolution() -> None:
    classifier = timm.create_model("resnet101").state_dict()
    network = MaskRefineNet(2)
    stem = network.encoder.get_parameter("conv1.weight").clone()
    load_encoder(network, classifier, "resnet101")
    loaded = network.encoder.state_dict()
    assert torch.equal(loaded["conv1.weight"], stem)
    assert all(
        torch.equal(loaded[name], tensor)
        for name, tensor in classifier.items()
        if name in loaded and name != "conv1.weight"
    )
    assert {name for name in classifier if not name.startswith("fc.")} == set(loaded)
    with pytest.raises(UserError, match="do not fit"):
        load_encoder(network, timm.create_model("resnet18").state_dict(), "resnet18")


def test_published_names_are_those_of_the_network_once_renamed() -> None:
    with torch.device("meta"):
        ours: dict[str, Tensor] = MaskRefineNet(80).state_dict()
    back = {"encoder.conv1.": "layer0.0.", "encoder.bn1.": "layer0.1.", "encoder.layer1.": "layer1.1."}
    back |= {f"encoder.layer{number}.": f"layer{number}." for number in (2, 3, 4)}
    published = {}
    for name, tensor in ours.items():
        old, new = next(((old, new) for old, new in back.items() if name.startswith(old)), ("", ""))
        published[new + name.removeprefix(old)] = tensor
    assert published["layer0.0.weight"].shape == (64, 85, 7, 7)
    groups = {name.split(".")[0] for name in published}
    assert groups == {"layer0", "layer1", "layer2", "layer3", "layer4", "aspp", "head"} | {
        f"decoder_{number}" for number in range(4)
    }
    renamed = official_state(published)
    assert list(renamed) == list(ours)
    assert all(renamed[name] is tensor for name, tensor in ours.items())


def test_configurations_are_found_by_name() -> None:
    assert refine_config("resnet101") is RESNET101
    assert (RESNET101.reach, MICRO.reach) == (19, 7)
    with pytest.raises(UserError, match="did you mean micro"):
        refine_config("mikro")
