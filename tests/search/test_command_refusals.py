"""What `vtk search` refuses, each in one line that says what is wrong and what to do, with exit code 2."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.search.command_line import EVOLUTION, SCORE, SEARCH, TRAINING, Vtk, tree

CPU = ("--device", "cpu")
SKIPS = " ".join(["3 3", "0 3 3", "0 0 3 3", "0 0 0 3 3"] * 2)
DEAD = SKIPS.replace("0 3 3", "0 0 3", 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sigma", "0.003", "--sigma", "0.001"], "sigmas must be positive and strictly increasing, got 0.003, 0.001"),
        (["--sigma", "0"], "sigmas must be positive and strictly increasing, got 0"),
        (["--sigma", "0.1", "--sigma", "0.1"], "sigmas must be positive and strictly increasing, got 0.1, 0.1"),
        (["--sigma", "nan"], "--sigma"),
        (["--val-images", "0"], "--val-images"),
        (["--bn-images", "1"], "--bn-images"),
        (["--draws", "0"], "--draws"),
        (["--score", "flatnes"], "flatness"),
        (["--population", "3"], "3 mutations and 2 crossovers are more than 3"),
        (["--space", "darst"], "darts"),
        (["--space", "darts", "--sampler", "fair"], "strict fairness needs layers that are chosen by themselves"),
        (["--sampler", "flops-uniform", "--flops-bins", "1G-2G"], "holds no network of digits-mini; attainable are"),
        (["--sampler", "flops-uniform", "--flops-bins", "x"], "'x' is no bin"),
        (["--flops-bins", "1k-2M"], "only --sampler flops-uniform has bins"),
        (["--max-flops", "much"], "'much' is not a number such as 600M"),
        (["--form", "supernet"], "is no network that is trained by itself"),
        (["--form", "imagenet"], "digits-mini has no networks of the form 'imagenet'"),
        (["--fit-width", "600M"], "networks of digits-mini have one width"),
        (["--retrain-recipe", "best"], "no such recipe 'best'"),
        (["--width", "100000"], "width of at most 1024"),
        (["--cells", "5"], "networks of digits-mini have their cells fixed"),
        (["--size", "100000"], "resolution of at most 16384"),
        (["--size", "1000"], "the digits are drawn with at most 256 pixels a side"),
        (["--shard", "2/2"], "shard"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_make_no_search_are_refused_before_anything_is_done(
    vtk: Vtk, tmp_path: Path, words: list[str], said: str
) -> None:
    assert said in vtk("run", *SEARCH, *words, "-o", "run").complaint
    assert not tree(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"train": [], "valid": [0, 1]}, "train"),
        ({"train": [0, 1], "valid": []}, "valid"),
        ({"train": [0, 1, 2], "valid": [2, 3]}, "2"),
        ({"train": [0, 1], "valid": [2, 999999]}, "999999"),
        ({"train": [0, -1], "valid": [2]}, "-1"),
        ({"train": [0, "one"], "valid": [2]}, "one"),
        ({"train": [0]}, "valid"),
        ([], "no object"),
    ],
    ids=["empty train", "empty valid", "overlap", "too large", "negative", "word", "one half", "list"],
)
def test_halves_that_are_none_are_refused(vtk: Vtk, tmp_path: Path, content: object, said: str) -> None:
    (tmp_path / "split.json").write_text(json.dumps(content), encoding="utf-8")
    complaint = vtk("supernet", *TRAINING, "--split-file", "split.json").complaint
    assert "split.json" in complaint
    assert said in complaint


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("2 0", "digits-mini needs 3 genes in 0..3; there are 2"),
        ("2 0 4", "digits-mini needs 3 genes in 0..3; gene 2 (from 0) is 4"),
        ("two", "'two' is no architecture of digits-mini"),
        ("random:0", "is no number of architectures"),
        ("random:65", "digits-mini has 64 architectures, not 65"),
        ("genas-flatness-cifar10", "the architecture is of darts, not of digits-mini"),
        ("nowhere.json", "nowhere.json: cannot be read"),
    ],
)
def test_architectures_outside_of_the_space_are_refused(vtk: Vtk, trained: Path, arch: str, said: str) -> None:
    assert said in vtk("score", arch, "--supernet", trained, *SCORE, *CPU).complaint


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("3 3", "darts needs 28 genes in 0..7; there are 2"),
        (SKIPS.replace("3", "8"), "darts needs 28 genes in 0..7; gene 0 (from 0) is 8"),
        (DEAD, "node 3 of the normal cell has 1 input"),
    ],
)
def test_cells_that_are_none_are_refused(vtk: Vtk, arch: str, said: str) -> None:
    assert vtk("show", SKIPS, "--space", "darts").code == 0
    assert said in vtk("show", arch, "--space", "darts").complaint


@pytest.mark.parametrize("verb", ["score", "evolve", "rank", "export"])
def test_what_is_no_supernet_is_refused_by_every_verb(vtk: Vtk, tmp_path: Path, verb: str) -> None:
    (tmp_path / "truth.csv").write_text("arch,dataset,split,hp,seed,accuracy\n", encoding="utf-8")
    words = {"score": ["all"], "evolve": [], "rank": ["truth.csv"], "export": ["2 0 3"]}[verb]
    (tmp_path / "empty").mkdir()
    for folder in ("nowhere", "empty"):
        assert "holds no run of `vtk search`" in vtk(verb, *words, "--supernet", folder).complaint


def test_a_damaged_supernet_is_named(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    final = tmp_path / "run" / "supernet" / "final.safetensors"
    final.write_bytes(final.read_bytes()[:-100])
    assert "final.safetensors" in vtk("score", "all", "--supernet", "run", *SCORE, *CPU).complaint


def test_verbs_that_need_an_architecture_say_so(vtk: Vtk, trained: Path) -> None:
    for words in (("show",), ("export",), ("retrain",), ("score", "--supernet", trained)):
        assert "no architecture is named" in vtk(*words).complaint
    assert "genes need --space" in vtk("show", "2 0 3").complaint
    assert "there is nothing to compare with" in vtk("rank", "--supernet", trained).complaint


def test_a_supernet_of_another_space_or_size_gives_no_weights(vtk: Vtk, trained: Path) -> None:
    complaint = vtk("export", "genas-flatness-cifar10", "--supernet", trained).complaint
    assert "the architecture is of darts, not of digits-mini" in complaint
    assert (
        "fit the network of its own form and size alone"
        in vtk("export", "2 0 3", "--supernet", trained, "--width", 4).complaint
    )


def test_a_benchmark_without_its_list_of_architectures_is_refused(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    name = "NATS-tss-v1_0-3ffb9-simple"
    (tmp_path / name).mkdir()
    import bz2

    (tmp_path / name / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"total_archs": 3})))
    assert "meta_archs" in vtk("rank", name, "--supernet", trained).complaint


def test_images_of_one_class_or_of_too_few_are_refused(vtk: Vtk, tmp_path: Path) -> None:
    for root, names, count in (("one", ["ant"], 8), ("few", ["ant", "bee"], 1)):
        for name in names:
            (tmp_path / root / "train" / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((20, 20, 3), 10 * number, np.uint8)
                Image.fromarray(pixels).save(tmp_path / root / "train" / name / f"{number}.png")
    (tmp_path / "none").mkdir()
    words = ("--space", "chain-a", "--batch-size", 4, "--workers", 0, *TRAINING)
    assert "class" in vtk("supernet", "one", *words).complaint
    assert vtk("supernet", "few", *words).complaint
    assert vtk("supernet", "none", *words).complaint
    assert not (tmp_path / "runs").exists()


def test_a_store_that_may_not_be_written_is_named(vtk: Vtk, trained: Path, read_only_folder: Path) -> None:
    said = vtk("score", "2 0 3", "--supernet", trained, *SCORE, *CPU, "--store", read_only_folder)
    assert said.code in {1, 2}
    assert str(read_only_folder) in said.err
    assert "Traceback" not in said.err


def test_devices_are_for_one_process(vtk: Vtk, trained: Path) -> None:
    assert (
        "leave out --devices"
        in vtk("evolve", "--supernet", trained, *EVOLUTION, "--shard", "queue", "--devices", "cpu,cpu").complaint
    )
    assert "'tpu' is no device" in vtk("score", "2 0 3", "--supernet", trained, "--devices", "cpu,tpu").complaint


def test_the_released_ways_of_measuring_are_not_mixed_with_others(vtk: Vtk, trained: Path) -> None:
    words = ("score", "2 0 3", "--supernet", trained, *CPU, "--official-quirks")
    assert "--official-quirks --draws: has values of its own for it" in vtk(*words, "--draws", 5).complaint
    settings = vtk(*words, "--val-images", 60, "--json").object["settings"]
    assert (settings["draws"], settings["bn"], settings["batch_size"]) == (1, "ema14", 64)
    assert (settings["common_noise"], settings["fixed_calibration"], settings["loss_mean"]) == (False, False, "batches")


def test_a_half_that_is_too_large_to_draw_from_is_refused_for_the_released_way(
    vtk: Vtk, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtk_cli.search.measuring._MOST_BYTES", 2**20)
    words = ("score", "2 0 3", "--supernet", trained, "--val-images", 60, *CPU)
    assert "it draws calibration images from all 719 of the training half" in vtk(*words, "--official-quirks").complaint
    assert vtk(*words, "--draws", 1).code == 0
