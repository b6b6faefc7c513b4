"""Adapted networks as plain ones, the authors' checkpoints, and files that say what they hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from tests.adapt.tiny_domains import QUIET, learner, trained
from vtk_cli.adapt.domain_norm import SOURCE, TARGET, norm_layers
from vtk_cli.adapt.export import PLAIN_DIGITS, plain_network, save_plain
from vtk_cli.adapt.network_file import open_network, save_network
from vtk_cli.adapt.networks import DomainNetwork, build_network
from vtk_cli.adapt.published_checkpoints import load_published, read_published, save_published
from vtk_cli.errors import UserError
from vtk_cli.models.names import file_metadata
from vtk_cli.models.zoo import create_network

NAMES = ("across", "down", "both")


def used(name: str, side: int, arguments: dict[str, int] | None = None, width: int = 16) -> DomainNetwork:
    """A network whose domains have seen different images."""
    torch.manual_seed(0)
    network = build_network(name, classes=3, console=QUIET, model_args=arguments, size=side, width=width).train()
    with torch.no_grad():
        for domain in (SOURCE, TARGET):
            network(torch.randn(8, 3, side, side) * (1 + domain) + domain, domain)
            for layer in norm_layers(network, domain):
                layer.weight.add_(0.1 * torch.randn_like(layer.weight))
    return network.eval()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("digits-cnn", None),
        ("resnet18", None),
        ("convnext_atto", None),
        ("mobilenetv3_small_050", None),
        ("vit_tiny_patch16_224", {"depth": 2, "img_size": 32}),
    ],
)
@pytest.mark.parametrize("domain", [SOURCE, TARGET])
def test_a_plain_network_answers_as_the_adapted_one(name: str, arguments: dict[str, int] | None, domain: int) -> None:
    network = used(name, 32, arguments)
    plain = plain_network(network, domain)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected, other = network(images, domain).logits, network(images, 1 - domain).logits
        assert (plain(images) - expected).abs().max() < 1e-5
    assert (expected - other).abs().max() > 1e-3


def test_a_plain_file_is_read_by_its_own_name_and_by_timm(tmp_path: Path) -> None:
    network = used("resnet18", 32)
    path = tmp_path / "plain.safetensors"
    save_plain(path, network, NAMES, {"round": "3"})
    images = torch.randn(4, 3, 32, 32)
    expected = network(images, TARGET).logits
    ours = create_network(str(path))
    assert ours.num_classes == 3
    assert ours.config == network.pixels
    assert (ours.module(images) - expected).abs().max() < 1e-5
    theirs = timm.create_model("resnet18", num_classes=3, checkpoint_path=str(path)).eval()
    assert (theirs(images) - expected).abs().max() < 1e-5
    assert file_metadata(path)["round"] == "3"


def test_a_plain_file_of_digits_is_read_by_the_name_of_its_factory(tmp_path: Path) -> None:
    network = used("digits-cnn", 32, width=64)
    path = tmp_path / "plain.safetensors"
    save_plain(path, network, NAMES, {})
    found = create_network(f"{PLAIN_DIGITS}={path}", num_classes=3)
    images = torch.randn(4, 3, 32, 32)
    assert (found.module(images) - network(images, TARGET).logits).abs().max() < 1e-5
    assert found.config == network.pixels


def test_a_network_after_adaptation_is_exported_under_the_targets_normalisation() -> None:
    one = learner()
    plain = plain_network(one.network)
    images = torch.randn(4, 3, 16, 16)
    one.parts.eval()
    assert (plain(images) - one.network(images, TARGET).logits).abs().max() < 1e-5


def official(network: DomainNetwork) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What TL-ADA's code would have saved: every name that its networks have."""
    names = set(torchvision.models.resnet18().state_dict()) - {"fc.weight", "fc.bias"}
    own = network.state_dict()
    encoder = {}
    for name in sorted(names):
        layer, _, tensor = name.rpartition(".")
        if "bn" in layer.split(".")[-1] or layer.endswith("downsample.1"):
            for domain in (0, 1):
                key = f"{layer}.bns.{domain}.{tensor}"
                encoder[key] = own[f"backbone.network.{key}"]
        else:
            encoder[name] = own[f"backbone.network.{name}"]
    encoder |= {f"bottleneck.{name}": own[f"bottleneck.{name}"] for name in ("weight", "bias")}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    encoder |= {f"b_bn1.bns.{d}.{name}": own[f"norm.bns.{d}.{name}"] for d in (0, 1) for name in norm}
    g, v = (own[f"head.parametrizations.weight.original{number}"] for number in (0, 1))
    return encoder, {"fc.weight_g": g, "fc.weight_v": v, "fc.bias": own["head.bias"]}


def test_checkpoints_of_tl_ada_are_written_with_their_names_and_read_back(tmp_path: Path) -> None:
    network = used("resnet18", 32, width=256)
    save_published(network, tmp_path)
    for name, expected in zip(("FE.pt", "CLS.pt"), official(network), strict=True):
        found = torch.load(tmp_path / name, weights_only=True)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    anew = build_network("resnet18", classes=3, console=QUIET, size=32, width=256)
    load_published(anew, read_published(tmp_path))
    assert all(torch.equal(value, anew.state_dict()[name]) for name, value in network.state_dict().items())


def test_newer_names_of_the_weight_norm_are_read_too(tmp_path: Path) -> None:
    network = used("resnet18", 32)
    save_published(network, tmp_path)
    head = torch.load(tmp_path / "CLS.pt", weights_only=True)
    renamed = {
        "fc.parametrizations.weight.original0": head["fc.weight_g"],
        "fc.parametrizations.weight.original1": head["fc.weight_v"],
        "fc.bias": head["fc.bias"],
    }
    torch.save(renamed, tmp_path / "CLS.pt")
    anew = build_network("resnet18", classes=3, console=QUIET, size=32, width=16)
    load_published(anew, read_published(tmp_path))
    assert torch.equal(anew.head.weight, network.head.weight)


@pytest.mark.parametrize("domain_norm", [True, False])
def test_checkpoints_of_shot_fill_both_domains(tmp_path: Path, domain_norm: bool) -> None:
    torch.manual_seed(0)
    plain = torchvision.models.resnet18()
    plain.fc = nn.Identity()
    bottleneck, norm = nn.Linear(512, 16), nn.BatchNorm1d(16)
    head = nn.utils.parametrizations.weight_norm(nn.Linear(16, 3))
    g, v = head.parametrizations.weight.original0, head.parametrizations.weight.original1
    second = {f"bottleneck.{n}": t for n, t in bottleneck.state_dict().items()}
    second |= {f"bn.{n}": t for n, t in norm.state_dict().items()}
    torch.save(plain.state_dict(), tmp_path / "source_F.pt")
    torch.save(second, tmp_path / "source_B.pt")
    torch.save(
        {"fc.weight_g": g.detach(), "fc.weight_v": v.detach(), "fc.bias": head.bias.detach()}, tmp_path / "source_C.pt"
    )
    network = build_network("resnet18", classes=3, console=QUIET, size=32, width=16, domain_norm=domain_norm).eval()
    load_published(network, read_published(tmp_path))
    images = torch.randn(2, 3, 32, 32)
    whole = nn.Sequential(plain, bottleneck, norm, head).eval()
    with torch.no_grad():
        for domain in (SOURCE, TARGET):
            assert torch.allclose(network(images, domain).logits, whole(images), atol=1e-5)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither FE"):
        read_published(tmp_path)
    save_published(used("resnet18", 32), tmp_path)
    checkpoint = read_published(tmp_path)
    with pytest.raises(UserError, match="is of 3 classes, the source has 4"):
        load_published(build_network("resnet18", classes=4, console=QUIET, size=32, width=16), checkpoint)
    for name, width in (("resnet34", 16), ("resnet18", 32)):
        with pytest.raises(UserError, match="do not fit"):
            load_published(build_network(name, classes=3, console=QUIET, size=32, width=width), checkpoint)
    with pytest.raises(UserError, match="share their batch normalisation"):
        save_published(trained(domain_norm=False), tmp_path)


@pytest.mark.parametrize("name", ["digits-cnn", "resnet18"])
def test_a_network_file_is_all_that_is_needed_to_start_from(tmp_path: Path, name: str) -> None:
    network = used(name, 32)
    save_network(tmp_path / "source.safetensors", network, NAMES)
    found, names = open_network(tmp_path / "source.safetensors", QUIET)
    assert names == NAMES
    assert found.pixels == network.pixels
    images = torch.randn(2, 3, 32, 32)
    for domain in (SOURCE, TARGET):
        assert torch.equal(found.eval()(images, domain).logits, network(images, domain).logits)


def test_other_files_are_no_network_to_start_from(tmp_path: Path) -> None:
    save_plain(tmp_path / "plain.safetensors", used("resnet18", 32), NAMES, {})
    with pytest.raises(UserError, match="holds no network of vtk adapt"):
        open_network(tmp_path / "plain.safetensors", QUIET)
    with pytest.raises(UserError, match="no such file"):
        open_network(tmp_path / "missing.safetensors", QUIET)
