"""The program: what it imports, and how it ends."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vtk_cli import __version__
from vtk_cli.app import SUBCOMMANDS, main

HEAVY = {"torch", "torchvision", "timm", "numpy", "scipy", "sklearn", "matplotlib", "decord", "av", "pycocotools"}


def imported_by(*arguments, **environment):
    """The top-level modules that `python -m vtk_cli ARGUMENTS` imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "vtk_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "vtk_cli.app" in names
    return {name.partition(".")[0] for name in names}, names


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["nonsense"]])
def test_the_front_door_imports_nothing_heavy_and_no_subcommand(arguments):
    top, names = imported_by(*arguments)
    assert not top & HEAVY
    assert "vtk_cli.options" not in names  # every subcommand imports it


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_help_of_a_subcommand_imports_nothing_heavy(name):
    top, names = imported_by(name, "--help")
    assert not top & HEAVY
    assert "vtk_cli.options" in names


@pytest.mark.parametrize("words", ["vtk sim", "vtk similarity vit_", "vtk similarity --at"])
def test_completion_imports_nothing_heavy(words):
    top, _ = imported_by(_VTK_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
    assert not top & HEAVY


def test_completion_offers_subcommands_networks_and_flags():
    def offered(words):
        done = subprocess.run(
            [sys.executable, "-m", "vtk_cli"],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "_VTK_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split()) - 1),
            },
        )
        return done.stdout.split()

    assert offered("vtk sim") == ["similarity"]
    assert "vit_b" in offered("vtk similarity vit_")
    assert "--attack" in offered("vtk similarity --att")


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vtk {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["similarty"], "Did you mean 'similarity'"),
        (["similarity", "--epz", "1"], "No such option"),
        (["similarity", "--steps", "many"], "Invalid value for '--steps'"),
        (["similarity", "a", "b", "--eps", "8"], "did you mean 8/255?"),
        (["similarity", "a", "b", "--eps", "0"], "out of range"),
        (["similarity", "a", "b", "--eps", "0.5/255"], "give at least 1/255"),
        (["similarity", "a", "b", "--steps", "0"], "give a number at least 1"),
        (["similarity", "a", "b", "--step-size=-1"], "give a positive number"),
        (["similarity", "a", "b", "--step-size", "x"], "give a positive number"),
        (["similarity", "a", "b", "--shard", "3/3"], "I from 0 to COUNT-1"),
        (["similarity", "a", "b", "--shard", "0/2", "--merge"], "leave out --merge"),
        (["similarity", "a", "b", "--weights", "pretrained"], "give --data DIR"),
        (["similarity", "a", "b", "--quick", "--data", "x"], "leave out --data"),
        (["similarity", "--import-matrix", "none.csv", "--importance"], "give --features FILE"),
        (["data", "make"], "Missing argument 'NAME'"),
        (["proof", "similarity", "--seeds", "0-999999999"], "1,000,000,000 seeds; give at most 1000"),
        (["similarity", "a", "b", "--class-map", "m.json"], "digits are labelled; give --data DIR"),
        (["similarity", "a", "b", "--labels", "agree"], "digits are labelled; give --data DIR"),
        (["proof", "similarity", "--readme", "none.md"], "--readme none.md: is no file"),
        (["proof"], "detect, prune, search, segment, similarity, train, video-pretrain, all"),
        (["proof", "similarty"], "did you mean similarity?"),
        (["proof", "similarity", "--seeds", "2-0"], "give 0-2 or 0,3,5"),
        (["bench", "nothing"], "no bench 'nothing'"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_debug_shows_the_traceback_as_well(capsys):
    assert main(["similarity", "a", "b", "--eps", "8", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("did you mean 8/255?\n")


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_a_group_alone_shows_its_help_and_nothing_else(arguments, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert "Usage: vtk" in out
    assert err == ""


def test_help_lists_every_subcommand_and_no_other(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    commands = shown[shown.index("Commands") :]
    assert set(re.findall(r"^│ ([a-z-]+) ", commands, re.MULTILINE)) == set(SUBCOMMANDS)


def test_a_closed_pipe_ends_quietly():
    shell = f"set -o pipefail; {sys.executable} -m vtk_cli similarity --help | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_json_of_a_dry_run_is_one_object_and_nothing_else(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    assert main(["similarity", "resnet50", "vit_b", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [network["label"] for network in plan["networks"]] == ["resnet50", "vit_b"]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["--version"], ["similarity", "--help"], ["data", "list"]])
def test_an_output_that_takes_nothing_is_one_line_and_exit_code_1(arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vtk_cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: the output: No space left on device\n"


def test_a_closed_output_is_no_error():
    shell = f"{sys.executable} -m vtk_cli data list --json >&-"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_option_may_be_spelt_with_underscores(capsys):
    assert main(["train", "--images_per_class", "2", "--sub_ratio", "0.25", "--dry_run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sub_ratio"] == "0.25"
