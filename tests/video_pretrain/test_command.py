"""`vtk video-pretrain` as a user runs it: training, going on, every protocol, prediction, preview, wrong input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.video_pretrain.tiny_runs import CPU, SSL, SUPERVISED, Call, load
from vtk_cli.data.video.clips import ClipSource
from vtk_cli.video_pretrain.looking import Found, Looker
from vtk_cli.video_pretrain.samples import TestViews


def test_a_run_leaves_weights_a_page_and_its_numbers(finished: Path) -> None:
    summary = load(finished / "summary.json")
    assert 0 <= summary["top1"] <= 1
    assert summary["updates"] == 9
    assert summary["broken videos"] == 0
    for name in ("model.safetensors", "best.safetensors", "report.html", "metrics.jsonl", "plots/training.png"):
        assert (finished / name).is_file(), name


@pytest.mark.parametrize(
    "method",
    [
        ["--method", "moco", "--queue", "16", "--head-dim", "8"],
        ["--method", "byol", "--predictor-width", "16"],
        ["--method", "swav", "--prototypes", "8"],
        ["--model", "timesformer_tiny", "--time", "order,flow", "--freqaug", "st"],
    ],
)
def test_every_framework_trains(clips: Path, run: Call, method: list[str]) -> None:
    code, out, err = run("run", clips, *SSL, "--epochs", "1", *method, "--json")
    assert code == 0, err
    assert np.isfinite(json.loads(out)["loss"])


@pytest.mark.parametrize("protocol", ["knn", "linear", "retrieval"])
def test_features_are_evaluated(finished: Path, run: Call, protocol: str) -> None:
    code, out, err = run("eval", finished, "--protocol", protocol, "--device", "cpu", "--workers", "0", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["missing"], said["protocol"]) == (0, protocol)
    assert 0 <= said["R@1" if protocol == "retrieval" else "top1"] <= 1


def test_features_are_written_view_by_view(finished: Path, run: Call, tmp_path: Path) -> None:
    arguments = ["--protocol", "knn", "--test-clips", "2", "--export", "f.npz", "--device", "cpu", "--workers", "0"]
    code, _, err = run("eval", finished, *arguments)
    assert code == 0, err
    with np.load(tmp_path / "f.npz") as written:
        assert written["feat"].shape == (16, 48)
        assert written["path"].shape == written["start"].shape == written["end"].shape == (16,)
        assert (written["end"] > written["start"]).all()


@pytest.mark.parametrize("protocol", [["--protocol", "finetune"], ["--protocol", "linear", "--probe", "sgd"]])
def test_a_network_is_trained_further_on_the_classes(
    finished: Path, clips: Path, run: Call, protocol: list[str]
) -> None:
    fast = ["--epochs", "1", "--batch-size", "8", "--device", "cpu", "--workers", "0", "--out", "further"]
    code, out, err = run("eval", finished, clips, *protocol, *fast, "--json")
    assert code == 0, err
    assert 0 <= json.loads(out)["top1"] <= 1
    before, after = (load_file(path / "model.safetensors") for path in (finished, Path("further")))
    same = all(torch.equal(before[name], after[name]) for name in before)
    assert same == ("linear" in protocol)


def test_classes_are_tested_with_and_without_what_moves(classified: Path, run: Call) -> None:
    code, out, err = run("eval", classified, "--shortcuts", "--device", "cpu", "--workers", "0", "--json", "-o", "said")
    assert code == 0, err
    said = json.loads(out)
    assert set(said) >= {"top1", "top-1, shuffled", "top-1, reversed", "top-1, one frame", "top-1, background"}
    assert Path("said/report.html").is_file()


def test_videos_get_their_likeliest_classes_and_broken_ones_are_named(classified: Path, clips: Path, run: Call) -> None:
    Path("broken.mp4").write_bytes(b"no video")
    arguments = ["--model", classified, "--top-k", "2", "--features", "--device", "cpu", "--workers", "0", "--json"]
    code, out, err = run("predict", clips / "val", "broken.mp4", *arguments, "-o", "found")
    assert code == 0, err
    said = json.loads(out)
    assert (said["videos"], said["broken"]) == (8, ["broken.mp4"])
    assert all(len(entry["classes"]) == 2 for entry in said["predictions"])
    assert Path("found/features.npz").is_file()


def test_a_broken_training_video_is_replaced_and_named(clips: Path, run: Call, tmp_path: Path) -> None:
    lines = [f"{clips / line}" for line in (clips / "train.csv").read_text().splitlines()]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "list.csv").write_text("\n".join([*lines, f"{tmp_path / 'bad.mp4'} 0"]) + "\n")
    code, _, err = run("run", "list.csv", *SSL, "--epochs", "1", "--out", "run")
    assert code == 0, err
    assert "1 of 25 videos" in err
    assert "bad.mp4" in Path("run/bad_files.csv").read_text()


def test_a_missing_test_video_ends_an_evaluation_unless_it_is_allowed(
    finished: Path, clips: Path, run: Call, tmp_path: Path
) -> None:
    lines = [f"{clips / line}" for line in (clips / "val.csv").read_text().splitlines()]
    (tmp_path / "val.csv").write_text("\n".join([*lines, f"{tmp_path / 'none.mp4'} 0"]) + "\n")
    command = ["eval", finished, clips, "--val", "val.csv", "--protocol", "knn", "--device", "cpu", "--workers", "0"]
    code, _, err = run(*command)
    assert code == 2
    assert "1 of 9 test videos cannot be decoded" in err
    code, out, err = run(*command, "--allow-missing", "--json")
    assert code == 0, err
    assert json.loads(out)["missing videos"] == {str(tmp_path / "none.mp4"): "video is missing"}


def test_the_plan_of_an_evaluation_decodes_and_writes_nothing(finished: Path, run: Call, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("eval", finished, "--protocol", "linear", "--dry-run", "--json", "-o", "said")
    assert code == 0, err
    said = json.loads(out)
    assert (said["protocol"], said["training videos"], said["test videos"]) == ("linear", 24, 8)
    assert "top1" not in said
    assert sorted(tmp_path.rglob("*")) == before


def test_while_a_training_goes_on_a_test_has_one_view_of_a_video_and_all_at_its_end(
    clips: Path, run: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, heard = Looker.look, []

    def listening(self: Looker, source: ClipSource, views: TestViews, *others: Any, **named: Any) -> Found:
        heard.append((views.clips, views.crops))
        return look(self, source, views, *others, **named)

    monkeypatch.setattr(Looker, "look", listening)
    many = ["--test-clips", "2", "--test-crops", "3", "--epochs", "1"]
    code, _, err = run("run", clips, *SUPERVISED, *many)
    assert code == 0, err
    assert heard == [(1, 1), (2, 3)]


def test_no_decoder_outlives_its_command(finished: Path, clips: Path, run: Call) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if not children.is_file():
        pytest.skip("no /proc here")
    before, clip = children.read_text().split(), next((clips / "val").rglob("*.mp4"))
    for command in (
        ["run", clips, *SSL, "--epochs", "1"],
        ["eval", finished, "--protocol", "knn", *CPU],
        ["predict", clip, "--model", finished, "--features", *CPU],
        ["preview", clip],
    ):
        code, _, err = run(*command)
        assert code == 0, err
        assert children.read_text().split() == before, command[0]


def test_an_evaluation_does_not_write_over_the_page_of_a_run(finished: Path, run: Call) -> None:
    page = (finished / "report.html").read_bytes()
    code, _, err = run("eval", finished, "--protocol", "knn", *CPU, "--out", finished)
    assert code == 2
    assert "holds a run" in err
    assert (finished / "report.html").read_bytes() == page


def test_unlabelled_training_videos_are_named_as_such_and_labelled_tests_keep_their_classes(
    finished: Path, classified: Path, clips: Path, run: Call, tmp_path: Path
) -> None:
    lines = [str(clips / line.split()[0]) for line in (clips / "train.csv").read_text().splitlines()]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    lists = ["list.csv", "--val", clips / "val.csv"]
    code, _, err = run("eval", finished, *lists, "--protocol", "knn", *CPU)
    assert code == 2
    assert "the training videos have no labels" in err
    code, out, err = run("eval", classified, *lists, *CPU, "--json")
    assert code == 0, err
    assert json.loads(out)["n"] == 8


def test_the_filter_is_shown_as_a_picture_and_a_film(clips: Path, run: Call) -> None:
    clip = next((clips / "val").rglob("*.mp4"))
    code, out, err = run("preview", clip, "--freqaug", "t", "--img-size", "64", "-o", "look", "--json")
    assert code == 0, err
    assert 0 < json.loads(out)["energy_left"] < 1
    assert Path("look/preview.png").is_file()
    assert Path("look/preview.mp4").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.csv"], "none.csv"),
        (["run", "--time", "flow"], "gives no token for every patch"),
        (["run", "--time", "debias"], "needs classes"),
        (["run", "--method", "moco", "--queue", "100"], "is no multiple of the"),
        (["run", "--batch-size", "1"], "one alone has none"),
        (["run", "--freeze"], "is for supervised training"),
        (["run", "--dropout", "0.5"], "is for supervised training"),
        (["run", "--sampling", "segment:8", "--view-gap-min", "1"], "have no gap"),
        (["run", "--backend", "torchcodec"], "--backend: torchcodec is not installed"),
        (["run", "--freqaug", "t", "--sampling", "stride:1x1"], ">= 2 frames"),
        (["run", "--freqaug", "t", "--freq-cutoff-t", "0.7"], "cut-off must be in (0, 0.5] cycles/sample"),
        (["run", "--sampling", "dense:8"], "is no sampling"),
        (["run", "--model", "slow_r5"], "did you mean slow_r50"),
        (["run", "--weights", "none.safetensors"], "no such run folder or weight file"),
        (["eval", "none"], "no such run folder or weight file"),
        (["predict", "none.mp4"], "none.mp4"),
        (["predict"], "VIDEOS: no videos are named"),
        (["predict", "--dry-run"], "No such option"),
        (["predict", "--batch-size", "2"], "No such option"),
        (["predict", "--allow-missing"], "No such option"),
        (["preview", "--root", "there"], "No such option"),
        (["preview", "--workers", "2"], "No such option"),
        (["eval", "--resume", "there"], "No such option"),
        (["eval", "--protocol", "finetune", "--export", "f.npz"], "is not for a protocol that trains"),
        (["preview", "none.mp4"], "video is missing"),
        (["preview", "--freqaug", "none"], "nothing is filtered"),
        (["recipes", "mocoo"], "did you mean moco"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run: Call, clips: Path, arguments: list[str], message: str) -> None:
    given = (
        [arguments[0], clips, *SSL, *arguments[1:]] if arguments[0] == "run" and arguments[1][0] == "-" else arguments
    )
    code, out, err = run(*given)
    assert code == 2, err
    assert out == ""
    assert message in err
    assert "Traceback" not in err
