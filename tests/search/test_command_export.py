"""`vtk search retrain`, `show`, `export` and `spaces`: networks that `vtk train` and `vtk detect` take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.detect.coloured_shapes import draw, write
from tests.search.command_line import Vtk, calls_of, same_weights, terminated_at, tree
from vtk_cli.models.names import parse_network
from vtk_cli.models.spaces.architecture import read_architecture
from vtk_cli.models.spaces.catalog import RELEASED, SPACES, space_named
from vtk_cli.search.retrain_preparation import RetrainObjective

CPU = ("--device", "cpu")
DIGITS = ("2 0 3", "--space", "digits-mini")
TRAIN = ("--epochs", "1", "--batch-size", "4", "--workers", "0", "--sub", "none", *CPU)
DARTS = "genas-flatness-cifar10"
NORMAL = "3 6 0 4 4 0 6 6 0 0 0 0 4 3"


# retrain


def test_a_retraining_leaves_weights_that_vtk_train_measures_alike(vtk: Vtk, tmp_path: Path) -> None:
    found = vtk("retrain", *DIGITS, "--epochs", 2, *CPU, "-o", "run", "--json").object
    assert found["genes"] == [2, 0, 3]
    assert {"architecture.json", "model.safetensors", "best.safetensors", "report.html", "metrics.jsonl"} <= tree(
        tmp_path / "run"
    ).keys()
    assert read_architecture(tmp_path / "run" / "architecture.json").genes == (2, 0, 3)
    measured = vtk("eval", found["weights"], "digits", *CPU, "--json", command="train").object
    assert measured["top1"] == pytest.approx(found["top1"], abs=1e-9)


def test_a_stopped_retraining_goes_on_to_the_very_same_weights(vtk: Vtk, tmp_path: Path) -> None:
    words = ("retrain", *DIGITS, "--epochs", 2, *CPU)
    assert vtk(*words, "-o", "alone").code == 0
    with calls_of(RetrainObjective, "__call__", terminated_at(40)):
        assert vtk(*words, "-o", "stopped").code == 75
    with calls_of(RetrainObjective, "__call__") as after:
        assert vtk("retrain", "--resume", "stopped").code == 0
    assert len(after) == 18
    assert same_weights(tmp_path / "alone" / "model.safetensors", tmp_path / "stopped" / "model.safetensors")


# show and spaces


@pytest.mark.parametrize("name", [*RELEASED, "2 0 3", "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"])
def test_an_architecture_is_drawn_and_told(vtk: Vtk, tmp_path: Path, name: str) -> None:
    said = vtk("show", name, *(() if " " not in name else ("--space", "digits-mini")), "-o", "picture")
    assert said.code == 0
    assert all(len(line) <= 80 for line in said.out.splitlines())
    assert Image.open(tmp_path / "picture.png").size[0] > 300
    assert (tmp_path / "picture.svg").read_text(encoding="utf-8").count("<svg") == 1
    assert set(tree(tmp_path)) == {"picture.png", "picture.svg"}


def test_spaces_are_listed_in_80_columns(vtk: Vtk) -> None:
    said = vtk("spaces")
    assert all(len(line) <= 80 for line in said.out.splitlines())
    assert all(name in said.out for name in (*SPACES, *RELEASED)), "names can be copied"


# export


def test_an_exported_architecture_is_a_network_to_train(vtk: Vtk, tmp_path: Path, pictures: Path) -> None:
    small = ("--form", "imagenet", "--width", 4, "--cells", 5, "--size", 32)
    assert vtk("export", DARTS, *small, "-o", "found").code == 0
    words = ("--model", "found.json", "--img-size", 32, *TRAIN)
    found = vtk(pictures, *words, "-o", "run", "--json", command="train").object
    assert 0 <= found["top1"] <= 1
    again = vtk("eval", "run", *CPU, "--json", command="train").object
    assert again["top1"] == pytest.approx(found["top1"])


def test_inherited_weights_are_measured_and_trained_on(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    found = vtk("export", "2 0 3", "--supernet", trained, "-o", "found", "--json").object
    assert found["file"] == "found.safetensors"
    state, whole = load_file(tmp_path / "found.safetensors"), load_file(trained / "supernet/final.safetensors")
    assert all(any(torch.equal(value, other) for other in whole.values()) for name, value in state.items()
               if "running" not in name and "num_batches" not in name)  # fmt: skip
    assert vtk("eval", "found.safetensors", "digits", *CPU, command="train").code == 0
    words = ("digits", "--model", "found.safetensors", "--images-per-class", 2, *TRAIN)
    assert vtk(*words, "-o", "run", command="train").code == 0


def test_weights_of_a_retraining_are_exported_with_their_preprocessing(vtk: Vtk, tmp_path: Path) -> None:
    space = space_named("shufflenetv2")
    name = next(name for name in RELEASED if name.startswith("spos"))
    genes = RELEASED[name][1].genes
    network = space.network(genes, space.shape("stand-alone", 1000))
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, tmp_path / "w")
    (tmp_path / "w").rename(tmp_path / "w.pth.tar")
    assert vtk("export", name, "--weights", "w.pth.tar", "-o", "found").code == 0
    assert parse_network(str(tmp_path / "found.safetensors")).kind == "file"
    complaint = vtk("export", DARTS, "--weights", "w.pth.tar", "-o", "other").complaint
    assert "w.pth.tar" in complaint
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [(DARTS, "--form", "imagenet", "--width", 4, "--cells", 5), ("spos-shufflenetv2",)],
    ids=["darts", "shufflenetv2"],
)
def test_an_exported_architecture_is_a_backbone_to_detect_with(
    vtk: Vtk, tmp_path: Path, words: tuple[object, ...]
) -> None:
    name = next(name for name in RELEASED if name.startswith(str(words[0])[:4]))
    assert vtk("export", name, *words[1:], "-o", "found").code == 0
    data, rng = tmp_path / "data", np.random.default_rng(0)
    for split in ("train2017", "val2017"):
        write(data, split, [draw(data / split / f"{number}.png", rng) for number in range(4)])
    small = ("--recipe", "digits", "--model", "vidt-micro", "--size", 64, "--epochs", 2, "--warmup-steps", 1)
    words = (*small, "--batch-size", 4, "--workers", 0, "--backbone", "found.json", "--weights", "none", *CPU)
    said = vtk("train", data, *words, "-o", "run", command="detect")
    assert said.code == 0, said.err


# hostile files


def refused(vtk: Vtk, path: Path) -> str:
    complaint = vtk("show", path, "-o", "picture").complaint
    assert path.name in complaint
    also = vtk("digits", "--model", path, "--dry-run", command="train").complaint
    assert path.name in also
    return complaint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("null", "holds no architecture"),
        ("[]", ""),
        ('{"space": "resnet", "genes": []}', "unknown search space"),
        ('{"space": ["darts"], "genes": [1]}', "unknown search space"),
        ('{"space": "digits-mini"}', "has no genes"),
        ('{"space": "digits-mini", "genes": [2, 0]}', "digits-mini needs 3 genes in 0..3; there are 2"),
        ('{"space": "digits-mini", "genes": [2, 0, 1e99]}', "no list of integers"),
        ('{"space": "digits-mini", "genes": [2, 0, 4]}', "digits-mini needs 3 genes in 0..3; gene 2 (from 0) is 4"),
        ('{"space": "digits-mini", "genes": [2, 0, 99999999999999999999999]}', "needs 3 genes in 0..3"),
        ('{"space": "digits-mini", "genes": [2, 0, true]}', "no list of integers"),
        ('{"space": "digits-mini", "genes": [2, 0, 3], "form": ["x"]}', "no networks of the form"),
        ('{"space": "digits-mini", "genes": [2, 0, 3], "form": {}}', "no networks of the form"),
        ('{"space": "digits-mini", "genes": [2, 0, 3], "width": 100000000}', "have width of at most 1024"),
        ('{"space": "digits-mini", "genes": [2, 0, 3], "width": -1}', "its width is -1"),
        ('{"space": "digits-mini", "genes": [2, 0, 3], "cells": 3}', "cells fixed"),
        ('{"space": "digits-mini", "genes": [2, 0, 3], "resolution": 1000000}', "have resolution of at most 16384"),
        ('{"space": "digits-mini", "genes": [2, 0, 3], "num_classes": 1e10}', "its num_classes is"),
        ('{"space": "digits-mini", "genes": [2, 0, 3], "num_classes": 10000000000}', "have classes of at most"),
        ('{"space": "darts", "genes": [4, 4], "cells": 9}', "darts needs 28 genes in 0..7"),
        (f'{{"space": "darts", "genes": {[int(g) for g in NORMAL.split()] * 2}, "cells": 1000000000}}', "cells of at"),
        (f'{{"space": "darts", "genes": {[4] * 28}}}', "a node has exactly 2"),
        ('{"normal": [["sep_conv_3x3", 0]], "reduce": 5}', "the normal cell"),
        ('{"arch": "|nor_conv_3x3~0|"}', "is no architecture of nasbench201"),
        ('{"arch": 5}', ""),
    ],
)
def test_an_architecture_file_that_is_none_is_refused_in_a_line(
    vtk: Vtk, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "bad.json").write_text(content, encoding="utf-8")
    assert said in refused(vtk, tmp_path / "bad.json")
    assert set(tree(tmp_path)) == {"bad.json"}


@pytest.mark.parametrize(
    "architecture",
    ["py:os:getcwd", "hub:some/one", "other.json", "searched:../other.json", "searched:digits-mini/2.0.9", "searched:",
     "searched:darts/3.6/width=9", "searched:digits-mini/2.0.3/width=99999999", "searched:digits-mini/2.0.3/path=x"],
)  # fmt: skip
def test_a_weight_file_may_not_name_code_nor_another_file_nor_nonsense(
    vtk: Vtk, tmp_path: Path, architecture: str
) -> None:
    (tmp_path / "other.json").write_text('{"space": "digits-mini", "genes": [2, 0, 3]}', encoding="utf-8")
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors", {"architecture": architecture})
    said = vtk("eval", "w.safetensors", "digits", *CPU, command="train").complaint
    assert "w.safetensors" in said


def test_a_checkpoint_with_absurdly_many_cells_is_refused(vtk: Vtk, tmp_path: Path, pictures: Path) -> None:
    state = {f"cells.{10**9}.x": torch.zeros(1), "stem.0.weight": torch.zeros(48, 3, 3, 3),
             "classifier.weight": torch.zeros(2, 4)}  # fmt: skip
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth.tar")
    words = ("--space", "darts", "--batch-size", 4, "--workers", 0, *CPU)
    assert "cells of at most 1000" in vtk("supernet", pictures, *words, "--weights", "w.pth.tar").complaint


def test_a_released_checkpoint_with_code_in_it_runs_nothing(vtk: Vtk, tmp_path: Path, pictures: Path) -> None:
    class Run:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (Path("was-run"),))

    torch.save({"state_dict": Run(), "epoch": 3}, tmp_path / "w.pth.tar")
    words = ("--space", "darts", "--batch-size", 4, "--workers", 0, *CPU)
    assert "w.pth.tar" in vtk("supernet", pictures, *words, "--weights", "w.pth.tar").complaint
    assert not (tmp_path / "was-run").exists()


def test_json_of_an_export_is_what_the_file_says(vtk: Vtk, tmp_path: Path) -> None:
    found = vtk("export", *DIGITS, "-o", "found", "--json").object
    assert found["weights"] is None
    written = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert {name: found[name] for name in written} == written
