"""An evaluation without DATA is on the videos of the run, as the run read them; classes are compared by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.video_pretrain.tiny_runs import CPU, SSL, Call, load
from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.eval_options import EvalOptions
from vtk_cli.video_pretrain.further_training import further_training
from vtk_cli.video_pretrain.named_videos import common_classes
from vtk_cli.video_pretrain.trained import open_network


def known(*classes: str) -> Any:
    return cast("Any", SimpleNamespace(classes=classes, path=Path("model.safetensors")))


def test_an_evaluation_reads_the_lists_of_the_run_as_the_run_did(clips: Path, run: Call, tmp_path: Path) -> None:
    for part in ("train", "val"):
        shutil.copy(clips / f"{part}.csv", tmp_path / f"{part}.list")
    lists = ["train.list", "--val", "val.list", "--format", "paths", "--root", clips]
    code, _, err = run("run", *lists, *SSL, "--epochs", "1", "--out", "run")
    assert code == 0, err
    code, out, err = run("eval", "run", "--protocol", "knn", *CPU, "--json")
    assert code == 0, err
    assert (json.loads(out)["n"], json.loads(out)["missing"]) == (8, 0)


def test_other_data_is_not_tested_on_the_test_videos_of_the_run(clips: Path, finished: Path, tmp_path: Path) -> None:
    saved = open_network(str(finished))
    config = (finished / "config.toml").read_text()
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (copy / "config.toml").write_text(f'{config.rstrip()}\nval = "of-the-run.csv"\n')
    saved = open_network(str(copy))
    assert further_training(EvalOptions(), saved, "finetune").val == "of-the-run.csv"
    assert further_training(EvalOptions(data=str(clips)), saved, "finetune").val is None


def test_fine_tuning_has_plain_labels_its_own_rate_and_the_flips_of_the_run(clips: Path, finished: Path) -> None:
    saved = open_network(str(finished))
    tuned = further_training(EvalOptions(), saved, "finetune")
    assert (tuned.smoothing, tuned.time, tuned.freqaug, tuned.hflip) == (0.0, "none", "none", 0.0)
    assert (tuned.lr, tuned.lr_base_size, tuned.freeze) == (0.005, 64, False)
    probe = further_training(EvalOptions(data=str(clips), lr=0.1, hflip=0.5), saved, "linear")
    assert (probe.lr, probe.lr_base_size, probe.freeze, probe.hflip, probe.smoothing) == (0.1, None, True, 0.5, 0.0)


def test_classes_are_tested_on_all_of_a_bare_list(clips: Path, classified: Path, run: Call, tmp_path: Path) -> None:
    lines = (clips / "val.csv").read_text().splitlines()
    some = [f"{clips / line}" for line in lines if not line.endswith(" 3")]
    (tmp_path / "list.csv").write_text("\n".join(some) + "\n")
    code, out, err = run("eval", classified, "list.csv", *CPU, "--json", "-o", "said")
    assert code == 0, err
    assert json.loads(out)["n"] == len(some)
    assert load(Path("said/evaluation.json"))["n"] == len(some)
    code, _, err = run("eval", classified, "list.csv", "--protocol", "knn", *CPU)
    assert code == 2
    assert "has no test videos of its own" in err


def test_names_of_classes_must_agree_and_numbers_may_be_fewer():
    assert common_classes(known("0", "1", "2"), ("0", "1")) == ("0", "1", "2")
    assert common_classes(known("0", "1"), ("run", "jump")) == ("run", "jump")
    assert common_classes(known("run", "jump"), ("0", "1")) == ("run", "jump")
    assert common_classes(known("run", "jump"), ("run", "jump")) == ("run", "jump")
    for classes in (("jump", "run"), ("run",), ("0", "1", "2")):
        with pytest.raises(UserError):
            common_classes(known("run", "jump"), classes)
