from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from vtk_cli.errors import UserError
from vtk_cli.models.names import (
    ALIASES,
    PAPER69,
    distinct_labels,
    file_metadata,
    parse_network,
    parse_networks,
    read_network_list,
)


def test_names_and_aliases_are_understood_without_importing_torch_or_timm() -> None:
    code = (
        "import sys; from vtk_cli.models.names import parse_network; parse_network('vit_b'); parse_network('py:a:b');"
        "sys.exit(bool({'torch', 'timm', 'torchvision', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_alias_is_a_timm_network_with_published_weights_of_that_tag() -> None:
    published = set(timm.list_models(pretrained=True))
    assert set(ALIASES.values()) <= published
    for alias, target in ALIASES.items():
        name = parse_network(alias)
        assert (name.kind, name.tagged, name.label) == ("timm", target, alias)


def test_the_paper_has_69_networks_in_the_published_proportions_and_timm_has_weights_for_all() -> None:
    families = Counter(network.family for network in PAPER69)
    assert families == {
        "CNN": 39,
        "Transformer": 10,
        "MLP-Mixer": 3,
        "NAS (TFM)": 1,
        "NAS (CNN)": 8,
        "Hybrid": 8,
    }
    assert len({network.timm for network in PAPER69}) == len({network.published for network in PAPER69}) == 69
    assert {network.timm for network in PAPER69} <= set(timm.list_models(pretrained=True))
    assert [network.published for network in PAPER69 if not network.same_weights] == ["gluon_xception65"]


def test_the_papers_renamed_networks_keep_their_published_names() -> None:
    today = {network.published: network.timm for network in PAPER69}
    assert today["jx_nest_tiny"] == "nest_tiny_jx.goog_in1k"
    assert today["gluon_resnet101_v1c"] == "resnet101c.gluon_in1k"
    assert today["convnext_tiny"] == "convnext_tiny.fb_in1k"
    assert today["regnetx_320"] == "regnetx_320.pycls_in1k"


def test_a_bare_timm_name_means_its_default_weights_and_a_tag_means_those() -> None:
    assert parse_network("resnet18d").tagged == timm.models.get_pretrained_cfg("resnet18d").architecture + ".ra2_in1k"
    assert parse_network("resnet50.tv_in1k").tagged == "resnet50.tv_in1k"
    assert parse_network(" resnet18d ").spec == "resnet18d"


def test_a_name_timm_has_retired_means_its_successor() -> None:
    assert parse_network("jx_nest_tiny").tagged == "nest_tiny_jx.goog_in1k"


def test_an_unknown_name_gets_the_three_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown network 'vit_bb'; did you mean vit_b, \w+, \w+\?$"):
        parse_network("vit_bb")
    with pytest.raises(UserError, match=r"resnet50 has no weights 'a9'; timm has a1_in1k, "):
        parse_network("resnet50.a9")
    with pytest.raises(UserError, match=r"unknown torchvision network 'tv:resnet55'; did you mean resnet50"):
        parse_network("tv:resnet55")
    with pytest.raises(
        UserError, match=r"tv:resnet50 has no weights 'V3'; torchvision has IMAGENET1K_V1, IMAGENET1K_V2$"
    ):
        parse_network("tv:resnet50.V3")


def test_torchvision_hub_and_factory_names_are_told_apart() -> None:
    torchvision = parse_network("tv:resnet50")
    assert (torchvision.kind, torchvision.name, torchvision.tag) == ("torchvision", "tv:resnet50", "IMAGENET1K_V2")
    assert parse_network("tv:resnet50.IMAGENET1K_V1").tag == "IMAGENET1K_V1"
    hub = parse_network("hub:acme/net@v2")
    assert (hub.kind, hub.name, hub.label) == ("hub", "acme/net@v2", "acme/net@v2")
    factory = parse_network("py:my.nets:small")
    assert (factory.kind, factory.factory, factory.label) == ("factory", "my.nets:small", "small")


@pytest.mark.parametrize(
    "spec", ["hub:net", "hub:a/b/c", "py:module", "py:mod:not a name", "@paper69", "@all", "", "="]
)
def test_a_malformed_name_is_one_line_of_error(spec: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_network(spec)
    assert "\n" not in str(caught.value)


def test_name_equals_file_takes_the_architecture_from_the_name(tmp_path: Path) -> None:
    file = tmp_path / "run" / "best.pt"
    file.parent.mkdir()
    torch.save({}, file)
    name = parse_network(f"vit_b={file}")
    assert (name.kind, name.name, name.path, name.label) == ("file", "vit_base_patch16_224", file, "vit_b=run/best.pt")
    assert parse_network(f"tv:resnet18={file}").name == "tv:resnet18"
    with pytest.raises(UserError, match="no such weight file"):
        parse_network("resnet50=nothing.pt")
    with pytest.raises(UserError, match=r"is not a weight file; known are \.safetensors"):
        parse_network("resnet50=notes.txt")
    with pytest.raises(UserError, match="timm_name=FILE"):
        parse_network(f"hub:acme/net={file}")
    with pytest.raises(UserError, match="unknown network 'resnet5x'"):
        parse_network(f"resnet5x={file}")


def test_a_file_alone_must_say_its_architecture(tmp_path: Path) -> None:
    tensors = {"weight": torch.zeros(1)}
    said, silent, odd = (tmp_path / f"{name}.safetensors" for name in ("said", "silent", "odd"))
    safetensors.torch.save_file(tensors, said, metadata={"architecture": "vit_s"})
    safetensors.torch.save_file(tensors, silent)
    safetensors.torch.save_file(tensors, odd, metadata={"architecture": "resnet5x"})
    name = parse_network(str(said))
    assert (name.kind, name.name, name.path) == ("file", "vit_small_patch16_224", said)
    with pytest.raises(
        UserError, match=r"does not say what architecture it is for; name its architecture: NAME=.*silent"
    ):
        parse_network(str(silent))
    with pytest.raises(UserError, match="unknown architecture 'resnet5x'"):
        parse_network(str(odd))
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"name its architecture: NAME=.*x\.pt"):
        parse_network(str(tmp_path / "x.pt"))
    with pytest.raises(UserError, match="no such weight file"):
        parse_network("nowhere.safetensors")


@pytest.mark.parametrize("architecture", ["py:os:abort", "hub:acme/net"])
def test_a_file_does_not_choose_what_code_runs_or_what_is_fetched(tmp_path: Path, architecture: str) -> None:
    file = tmp_path / "net.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(1)}, file, metadata={"architecture": architecture})
    with pytest.raises(
        UserError, match=f"may not name the architecture '{architecture}' itself; name its architecture"
    ):
        parse_network(str(file))


def test_a_file_whose_name_holds_an_equals_sign_is_still_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lr=0.1.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(1)}, file, metadata={"architecture": "resnet18"})
    assert parse_network(str(file)).path == file
    assert parse_network(f"resnet50={file}").name == "resnet50"


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_metadata_of_a_damaged_file_is_one_line_of_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.safetensors: is not a whole safetensors file"):
        file_metadata(file)


def test_the_papers_list_expands_to_its_69_networks_wherever_it_stands(tmp_path: Path) -> None:
    assert len(parse_networks(["@paper69", "vit_b"])) == 70
    assert len(read_network_list("@paper69")) == 69
    file = tmp_path / "nets.txt"
    file.write_text("@paper69\nvit_b\n")
    names = read_network_list(file)
    assert len(names) == 70
    assert [name.tagged for name in names[:69]] == [network.timm for network in PAPER69]


def test_a_list_is_read_with_comments_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "nets.txt"
    file.write_text("\ufeff# two networks\n\nresnet50  # the classic\nvit_b\r\n", encoding="utf-8")
    assert [name.label for name in read_network_list(file)] == ["resnet50", "vit_b"]


def test_an_error_in_a_list_names_the_file_and_the_line(tmp_path: Path) -> None:
    file = tmp_path / "nets.txt"
    file.write_text("resnet50\n\nresnet5x\n")
    with pytest.raises(UserError, match=rf"^{file}:3: unknown network 'resnet5x'; did you mean "):
        read_network_list(file)
    file.write_text("resnet50=gone.pt\n")
    with pytest.raises(UserError, match=rf"^{file}:1: gone\.pt: no such weight file"):
        read_network_list(file)
    file.write_text("# nothing\n")
    with pytest.raises(UserError, match="names no network"):
        read_network_list(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8 text"):
        read_network_list(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_network_list(tmp_path / "none.txt")


def test_labels_of_several_networks_are_distinct(tmp_path: Path) -> None:
    files = [tmp_path / seed / "run" / "model.pt" for seed in "ab"]
    for file in files:
        file.parent.mkdir(parents=True)
        torch.save({}, file)
    names = parse_networks(["vit_b", *(f"resnet50={file}" for file in files), "vit_b", "resnet50"])
    assert names[1].label == names[2].label
    labels = distinct_labels(names)
    assert len(set(labels)) == 5
    assert labels[0] == "vit_b"
    assert labels[3] == "vit_b #2"
    assert labels[1] == names[1].spec
    assert labels[4] == "resnet50"


SEARCHED = "searched:darts/3.6.0.4.4.0.6.6.0.0.0.0.4.3.5.2.0.6.4.0.3.0.6.0.0.5.0.7/form=imagenet/width=4/cells=5"


def test_the_word_for_a_searched_network_may_say_its_sizes() -> None:
    assert (parse_network(SEARCHED).kind, parse_network(SEARCHED).name) == ("searched", SEARCHED)


@pytest.mark.parametrize("name", [SEARCHED, "searched:digits-mini/2.0.3", "searched:genas-flatness-cifar10"])
def test_a_searched_network_takes_a_weight_file_as_every_other(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a=b.pth"
    path.touch()
    found = parse_network(f"{name}={path}")
    assert (found.kind, found.name, found.path) == ("file", parse_network(name).name, path)


@pytest.mark.parametrize("name", ["searched:", "searched:=", "searched:darts/=x.pth", f"{SEARCHED}/color=red"])
def test_a_word_that_names_no_searched_network_is_refused(name: str) -> None:
    with pytest.raises(UserError):
        parse_network(name)
