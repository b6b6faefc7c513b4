"""`vtk models`: every network that can be named, who takes it, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from tests.command_line import Said
from vtk_cli.app import SUBCOMMANDS, main
from vtk_cli.catalogue import command, library_names
from vtk_cli.catalogue.counting import counted
from vtk_cli.catalogue.gathering import library_names as of_libraries
from vtk_cli.catalogue.gathering import model_lists, own_names
from vtk_cli.catalogue.library_names import LibraryNetwork
from vtk_cli.models.listing import ListedNetwork
from vtk_cli.models.names import ALIASES, parse_network
from vtk_cli.models.spaces.catalog import RELEASED, SPACES

METHODS = {"train", "detect", "segment", "video-pretrain", "prune", "search", "adapt", "similarity"}
KNOWN = {
    "resnet18": LibraryNetwork(("a1_in1k", "tv_in1k")),
    "resnet18d": LibraryNetwork(()),
    "vit_tiny_patch16_224": LibraryNetwork(("augreg_in21k_ft_in1k",)),
    "tv:resnet18": LibraryNetwork(("IMAGENET1K_V1",), 11_689_512),
}


@pytest.fixture
def vtk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(command, "library_networks", lambda console: KNOWN)

    def call(*arguments: str) -> Said:
        code = main(["models", *arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


def names(said: Said) -> list[str]:
    return [network["name"] for network in said.object["networks"]]


def test_every_subcommand_says_what_it_takes():
    assert set(model_lists()) == METHODS
    for listed in model_lists().values():
        for place in (*listed.TAKES.values(), *(place for network in listed.listed() for place in network.taken_by)):
            _, command_name, *_ = place.split()
            assert command_name in SUBCOMMANDS


def test_without_a_pattern_all_but_the_libraries_names_are_listed_on_80_columns(vtk):
    listed = names(vtk("--json"))
    assert {*ALIASES, *RELEASED, *SPACES, "vidt-nano", "solov2-r50", "slow_r50", "dcgan", "digits-cnn"} <= set(listed)
    assert len(set(listed)) == len(listed)
    said = vtk()
    assert max(map(len, said.out.splitlines()[:-1])) <= 80
    assert f"{len(KNOWN)} more of timm and torchvision" in said.out


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("resnet18*", ["resnet18", "resnet18d"]),  # the first is an alias, which hides timm's own
        ("tv:*", ["tv:resnet18"]),
        ("RESNET18D", ["resnet18d"]),
        ("resnet18.*", ["resnet18.a1_in1k", "resnet18.tv_in1k"]),
        ("vidt-plus-*n*", ["vidt-plus-nano", "vidt-plus-tiny"]),
        ("dcgan-t", ["dcgan-tiny"]),
    ],
)
def test_a_pattern_is_of_the_shell_and_a_word_is_a_part_of_the_name(vtk, pattern, expected):
    assert names(vtk(pattern, "--json")) == expected


def test_everything_is_listed_for_a_star(vtk):
    said = vtk("*", "--json")
    assert set(KNOWN) <= set(names(said))
    assert len(set(names(said))) == len(names(said))
    assert said.object["not_listed"] == 0


@pytest.mark.parametrize(("wrong", "near"), [("resnt18", "resnet18"), ("vidt-nanno", "vidt-nano"), ("dcgann", "dcgan")])
def test_a_pattern_that_matches_nothing_gets_the_nearest(vtk, wrong, near):
    assert near in vtk(wrong).complaint


def test_a_pattern_like_nothing_says_how_to_see_all(vtk):
    assert "vtk models '*'" in vtk("@@@@@@").complaint


def test_every_taker_of_a_network_is_named(vtk):
    (found,) = vtk("resnet18d", "--json").object["networks"]
    adapt, detect = "vtk adapt start --net", "vtk detect train --backbone"
    assert found["taken_by"] == [adapt, detect, "vtk similarity", "vtk train --model"]
    (found,) = vtk("tv:resnet18", "--json").object["networks"]
    assert found["taken_by"] == ["vtk similarity", "vtk train --model"]
    assert "Taken by similarity, train" in vtk("tv:resnet18").out


def test_parameters_that_are_known_are_shown_without_building(vtk):
    assert "11.69" in vtk("tv:resnet18").out
    (found,) = vtk("spos-shufflenetv2", "--json").object["networks"]
    assert found["params"] > 1e6
    assert found["macs"] > 1e8


def test_parameters_and_multiply_adds_are_counted_on_demand(vtk):
    (found,) = vtk("tv:resnet18", "--count", "--json").object["networks"]
    assert found["params"] == 11_689_512
    assert found["macs"] == 1_814_073_344
    assert found["uncounted"] is None
    assert "1814.07" in vtk("tv:resnet18", "--count").out


@pytest.mark.parametrize(
    "name", ["vidt-micro", "vidt-plus-micro", "solov2-micro", "c3d_tiny", "dcgan-tiny", "digits-cnn"]
)
def test_the_subcommands_own_networks_are_counted(vtk, name):
    (found,) = [each for each in vtk(name, "--count", "--json").object["networks"] if each["name"] == name]
    assert found["params"] > 1000
    assert found["macs"] > found["params"]


def test_a_count_is_that_of_the_network_built_with_data():
    listed = next(network for network in own_names() if network.name == "digits-cnn")
    module, (image,) = model_lists()["adapt"].built("digits-cnn")
    assert image.device == torch.device("cpu")
    by_hand = sum(3 * 3 * i * o * side**2 for i, o, side in ((3, 16, 32), (16, 32, 16), (32, 64, 8))) + 1024 * 10
    assert counted(listed).params == sum(each.numel() for each in module.parameters())
    assert counted(listed).macs == by_hand


def test_a_published_architecture_counts_as_its_space_says():
    listed = next(network for network in own_names() if network.name == "spos-shufflenetv2")
    count = counted(listed)
    assert count.params == listed.params
    assert count.macs == pytest.approx(listed.macs, rel=1e-3)


def test_a_network_that_cannot_be_built_is_told_and_ends_nothing(vtk):
    count = counted(ListedNetwork("no_such_network_at_all", "timm"))
    assert (count.params, count.macs) == (None, None)
    assert "no_such_network_at_all" in count.why
    (found,) = vtk("nasbench201", "--count", "--json").object["networks"]
    assert found["uncounted"] == "a space is many networks"


def test_the_libraries_are_asked_once_and_their_answer_is_kept(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    assert main(["models", "vit_tiny_patch16*", "--json"]) == 0
    first = capsys.readouterr()
    assert "asking timm and torchvision" in first.err
    for ask in ("_of_timm", "_of_torchvision"):
        monkeypatch.setattr(library_names, ask, lambda: pytest.fail("asked again"))
    assert main(["models", "vit_tiny_patch16*", "--json"]) == 0
    again = capsys.readouterr()
    assert not again.err
    assert json.loads(again.out) == json.loads(first.out)
    for network in of_libraries(library_names.kept_networks())[::60]:
        assert parse_network(network.name).kind == network.kind
        assert network.weights[:1] in {(), (parse_network(network.name).tag,)}


def test_a_kept_answer_that_is_torn_is_asked_for_again(monkeypatch, tmp_path):
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    for torn in ("", "{", "[]", '{"a": 3}', '{"a": [1, 2, 3]}'):
        library_names._file().parent.mkdir(exist_ok=True)
        library_names._file().write_text(torn)
        assert library_names.kept_networks() is None


def test_a_cache_that_cannot_be_written_costs_time_alone(capsys, monkeypatch, read_only_folder):
    monkeypatch.setenv("VTK_CACHE", str(read_only_folder))
    for ask in ("_of_timm", "_of_torchvision"):
        monkeypatch.setattr(library_names, ask, lambda: KNOWN)
    assert main(["models", "resnet18d", "--json"]) == 0
    assert "cannot be written" in capsys.readouterr().err


def test_the_second_answer_imports_no_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    library_names._file().parent.mkdir()
    library_names._file().write_text('{"resnet18": [["a1_in1k"], null]}')
    code = (
        "import sys; from vtk_cli.app import main; code = main(['models', '*', '--json']);"
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'timm', 'torchvision')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
