from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from vtk_cli.errors import UserError
from vtk_cli.prune.generators import GENERATORS, create_generator
from vtk_cli.prune.masking import prunable


def weights(network: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in prunable(network).values())


@pytest.mark.parametrize(
    ("name", "size", "channels", "count"),
    [
        ("resnet", 64, 3, 12_195_520),
        ("resnet", 32, 3, 3_544_768),
        ("sngan", 64, 3, 5_511_936),
        ("dcgan-tiny", 16, 1, 141_528),
    ],
)
def test_generators_have_the_published_numbers_of_weights(name: str, size: int, channels: int, count: int) -> None:
    with torch.device("meta"):
        generator = create_generator(name, size, channels)
    assert weights(generator) == count == sum(parameter.numel() for parameter in generator.parameters())


def test_sngan_with_biases_has_those_of_its_layers() -> None:
    with torch.device("meta"):
        generator = create_generator("sngan", 64, bias=True)
    assert sum(layer.bias.numel() for layer in prunable(generator).values()) == 7_171


def test_biggan_of_the_usual_width_has_the_weights_of_the_paper_to_a_thousandth() -> None:
    with torch.device("meta"):
        generator = create_generator("biggan", bias=True)
    assert sum(parameter.numel() for parameter in generator.parameters()) == pytest.approx(17.31e6, rel=1e-3)


@pytest.mark.parametrize(("name", "size"), [(card.name, size) for card in GENERATORS.values() for size in card.sizes])
def test_every_generator_makes_images_of_its_sizes(name: str, size: int) -> None:
    card = GENERATORS[name]
    with torch.device("meta"):
        generator = create_generator(name, size, 3, nz=(size.bit_length() - 2) * 6, ngf=8)
        images = generator(torch.zeros(2, generator.nz))
    assert images.shape == (2, 3, size, size)
    assert card.size in card.sizes


@pytest.mark.parametrize("name", GENERATORS)
def test_images_lie_in_the_range_of_tanh_and_depend_on_the_noise(name: str) -> None:
    torch.manual_seed(0)
    generator = create_generator(name, 32, 1, nz=16, ngf=8)
    images = generator(torch.randn(4, 16)).detach()
    assert images.abs().max() <= 1
    assert (images[0] - images[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", GENERATORS)
def test_layers_are_registered_in_the_order_of_the_forward_pass_first_and_last_at_the_ends(name: str) -> None:
    generator = create_generator(name, 32, 1, nz=16, ngf=8)
    called: list[str] = []
    layers = prunable(generator)
    for layer_name, layer in layers.items():
        layer.register_forward_hook(lambda *_, layer_name=layer_name: called.append(layer_name))
    generator(torch.randn(2, 16))
    assert sorted(called) == sorted(layers)
    assert (called[0], called[-1]) == (next(iter(layers)), list(layers)[-1])


@pytest.mark.parametrize("name", GENERATORS)
def test_there_is_nothing_but_weights_unless_biases_are_asked_for(name: str) -> None:
    generator = create_generator(name, 32, 1, nz=16, ngf=8)
    assert len(list(generator.parameters())) == len(prunable(generator))
    assert len(list(create_generator(name, 32, 1, nz=16, ngf=8, bias=True).parameters())) > len(prunable(generator))


def test_a_part_of_bigs_noise_reaches_each_block() -> None:
    torch.manual_seed(0)
    generator = create_generator("biggan", 32, 1, nz=16, ngf=8).eval()
    noise = torch.randn(2, 16, requires_grad=True)
    generator(noise).square().sum().backward()
    assert (noise.grad != 0).all()


def test_what_makes_a_generator_makes_it_again() -> None:
    generator = create_generator("resnet", 32, 1, ngf=8)
    again = create_generator(**generator.arguments)
    assert again.state_dict().keys() == generator.state_dict().keys()
    again.load_state_dict(generator.state_dict())


@pytest.mark.parametrize("size", [8, 17, 48, 0, -16])
def test_a_size_that_is_no_power_of_two_from_16_is_refused(size: int) -> None:
    with pytest.raises(UserError, match="not a power of two"):
        create_generator("resnet", size)


def test_wrong_names_and_numbers_are_refused_with_what_would_be_right() -> None:
    with pytest.raises(UserError, match="did you mean sngan"):
        create_generator("sngna")
    with pytest.raises(UserError, match="it makes 32, 64, 128, 256"):
        create_generator("biggan", 16)
    with pytest.raises(UserError, match=r"e\.g\. 120"):
        create_generator("biggan", 64, nz=118)
    with pytest.raises(UserError, match="multiple of 8"):
        create_generator("biggan", 64, ngf=12)
    with pytest.raises(UserError, match="--ngf"):
        create_generator("resnet", 32, ngf=0)


def test_the_catalog_does_not_import_torch() -> None:
    code = "import sys; from vtk_cli.prune.generators import GENERATORS; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
