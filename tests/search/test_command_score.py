"""`vtk search supernet`, `score` and `evolve` as a user runs them: what is measured, kept, shared and refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.search.command_line import EVOLUTION, SCORE, TRAINING, Vtk, calls_of, same_weights, terminated_at, tree
from vtk_cli.engine.pieces.results import ResultStore
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.search.scores.scorer import Scorer
from vtk_cli.search.supernet_training import PathObjective

GENES = ("2 0 3", "3 3 3", "0 1 2")
CPU = ("--device", "cpu")


def scores_of(run: Path) -> Any:
    return json.loads((run / "scores.json").read_text(encoding="utf-8"))["architectures"]


# The supernet


def test_a_supernet_leaves_its_weights_before_and_after_and_its_halves(vtk: Vtk, trained: Path) -> None:
    assert {"initial.safetensors", "final.safetensors", "halves.json", "images.json"} <= {
        path.name for path in (trained / "supernet").iterdir()
    }
    assert not same_weights(trained / "supernet/initial.safetensors", trained / "supernet/final.safetensors")
    halves = json.loads((trained / "supernet" / "halves.json").read_text(encoding="utf-8"))
    assert sorted(halves["train"] + halves["valid"]) == list(range(1437))


def test_a_stopped_supernet_goes_on_to_the_very_same_weights(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    with calls_of(PathObjective, "__call__", terminated_at(17)):
        assert vtk("supernet", *TRAINING, "-o", "run").code == 75
    assert "its supernet is not trained yet" in vtk("score", "all", "--supernet", "run").complaint
    assert vtk("supernet", "--resume", "run").code == 0
    assert same_weights(tmp_path / "run/supernet/final.safetensors", trained / "supernet/final.safetensors")


def test_a_dry_run_of_each_verb_writes_nothing(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    assert "50" in vtk("supernet", *TRAINING, "--dry-run").out
    assert vtk("score", "all", "--supernet", trained, "--dry-run", "--json").object["architectures"].startswith("64 ")
    assert vtk("evolve", "--supernet", trained, "--max-latency", 3, "--dry-run").code == 0
    assert vtk("retrain", "2 0 3", "--space", "digits-mini", "--dry-run").code == 0
    assert vtk("tabulate", "--dry-run", "--json").object["trainings"] == 192
    assert not tree(tmp_path)


@pytest.mark.parametrize("space", ["darts", "nasbench201"])
def test_published_checkpoints_are_taken_over_with_the_weights_before_training(
    vtk: Vtk, tmp_path: Path, pictures: Path, space: str
) -> None:
    home, words = space_named(space), ("--width", 2, "--cells", {"darts": 3, "nasbench201": 1}[space], "--size", 8)
    for seed, epoch in ((0, -1), (1, 250)):
        torch.manual_seed(seed)
        network = home.supernet(home.shape("supernet", 2, width=2, cells=words[3], resolution=8))
        content = {"epoch": epoch, "state_dict": network.state_dict(), "optimizer": {}}
        torch.save(content, tmp_path / f"checkpoint_epoch_{max(epoch, 0)}.pth.tar")
    taken = ("supernet", pictures, "--space", space, *words, *CPU, "--weights")
    last, first = "checkpoint_epoch_250.pth.tar", "checkpoint_epoch_0.pth.tar"
    assert vtk(*taken, last, "--initial", first, "-o", "run").code == 0
    scored = vtk("score", "random:3", "--supernet", "run", "--draws", 1, *CPU, "--json").object["architectures"]
    assert len(scored) == 3
    assert all({"flatness", "loss", "accuracy", "angle"} <= one.keys() for one in scored)
    assert any(one["angle"] > 0.1 for one in scored)

    said = vtk(*taken, last, "-o", "no-angle")
    assert said.code == 0
    assert "no angle can be measured" in said.err
    without = vtk("score", "random:1", "--supernet", "no-angle", "--draws", 1, *CPU, "--json").object
    assert "angle" not in without["architectures"][0]
    complaint = vtk("score", "random:1", "--supernet", "no-angle", "--score", "angle", *CPU).complaint
    assert "the angle needs the weights from before the training" in complaint

    assert "weights before training: its epoch is -1; give it as --initial" in vtk(*taken, first).complaint
    assert "weights after training: its epoch is 250" in vtk(*taken, last, "--initial", last).complaint
    other = [word if word != 2 else 4 for word in taken]
    assert "is of a supernet with width 2, not 4; give --width 2" in vtk(*other, last).complaint
    assert (
        "is of a supernet with classes 2, not 10"
        in vtk("supernet", "digits", "--space", space, *words, *CPU, "--weights", last).complaint
    )
    assert not (tmp_path / "runs" / "search-supernet").exists()


# Scores


def test_scores_are_told_side_by_side_in_80_columns(vtk: Vtk, trained: Path) -> None:
    words = ("score", *GENES, "--supernet", trained, *SCORE, *CPU)
    said = vtk(*words, "--score", "angle+flatness")
    assert said.code == 0
    lines = said.out.splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])
    header = next(line for line in lines if "genes" in line)
    assert all(word in header for word in ("score", "flatness", "loss", "accuracy", "angle", "MACs"))
    assert all(any(genes in line for line in lines) for genes in GENES)


def test_a_score_leaves_a_table_every_loss_and_a_page(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    found = vtk("score", *GENES, "--supernet", trained, *SCORE, *CPU, "-o", "run", "--json").object
    rows = [*csv.DictReader((tmp_path / "run" / "scores.csv").open(encoding="utf-8"))]
    assert {row["arch"] for row in rows} == set(GENES)
    for one, row in zip(found["architectures"], rows, strict=True):
        assert float(row["flatness"]) == one["flatness"]
        (curve,) = one["measured"]["noise"]["losses"]
        slopes = curve[0] / 0.001 + abs(curve[1] - curve[0]) / 0.002 + abs(curve[2] - curve[1]) / 0.003
        assert one["flatness"] == pytest.approx(1 / (slopes + 1e-5), rel=1e-9)
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000


def test_neither_order_nor_company_changes_a_score(vtk: Vtk, trained: Path) -> None:
    words = ("--supernet", trained, *SCORE, *CPU, "--json")
    together = vtk("score", *GENES, *words, "--store", "a").object["architectures"]
    backwards = vtk("score", *reversed(GENES), *words, "--store", "b").object["architectures"]
    alone = vtk("score", GENES[1], *words, "--store", "c").object["architectures"]
    assert together == backwards
    assert alone[0] in together


def test_what_is_in_the_store_is_not_measured_again_and_a_torn_entry_is(
    vtk: Vtk, trained: Path, tmp_path: Path
) -> None:
    words = ("score", "all", "--supernet", trained, *SCORE, *CPU, "--store", "store", "--metric", "flatness", "--json")
    first = vtk(*words).object
    with calls_of(Scorer, "measure") as measured:
        assert vtk(*words).object == first
    assert not measured
    entries = sorted((tmp_path / "store").rglob("*.json"))
    assert len(entries) == 128  # the noise, and the clean pass that came along
    torn, foreign = [entry for entry in entries if "noise" in entry.read_text(encoding="utf-8")][:2]
    torn.write_bytes(torn.read_bytes()[:40])
    foreign.write_text('{"of": "another program"}', encoding="utf-8")
    with calls_of(Scorer, "measure") as measured:
        assert vtk(*words).object == first
    assert len(measured) == 2


def test_stopped_scores_are_kept(vtk: Vtk, trained: Path) -> None:
    words = ("score", "random:12", "--supernet", trained, *SCORE, *CPU, "--metric", "flatness")
    with calls_of(Scorer, "measure", terminated_at(5)) as before:
        assert vtk(*words).code == 75
    with calls_of(Scorer, "measure") as after:
        assert vtk(*words).code == 0
    assert len(before) + len(after) == 12


@pytest.mark.parametrize("change", [("--seed", 1), ("--epochs", 3)], ids=["other halves", "other weights"])
def test_another_supernet_or_other_images_never_get_old_scores(vtk: Vtk, trained: Path, change: tuple[object]) -> None:
    words = (*SCORE, *CPU, "--store", "store", "--metric", "flatness", "--json")
    old = vtk("score", *GENES, "--supernet", trained, *words).object["architectures"]
    assert vtk("supernet", *TRAINING, *change, "-o", "other", "--quiet").code == 0
    with calls_of(Scorer, "measure") as measured:
        new = vtk("score", *GENES, "--supernet", "other", *words).object["architectures"]
    assert len(measured) == 3
    assert {one["flatness"] for one in old}.isdisjoint(one["flatness"] for one in new)


def test_images_that_changed_are_measured_anew_and_a_changed_list_of_them_is_refused(
    vtk: Vtk, pictures: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(pictures, tmp_path / "data")
    small = ("--space", "chain-a", "--batch-size", 4, "--augmentation", "digits", "--workers", 0)
    assert vtk("supernet", data, *TRAINING, *small, "-o", "run").code == 0
    words = ("score", "0 1 2", "--supernet", "run", "--draws", 1, *CPU, "--metric", "flatness", "--json")
    first = vtk(*words).object["architectures"][0]["flatness"]
    for split in ("0", "1"):  # one of each half, whichever they are
        for name in ("ant", "bee"):
            shutil.copy(data / "train" / name / "2.png", data / "train" / name / f"{split}.png")
    with calls_of(Scorer, "measure") as measured:
        second = vtk(*words).object["architectures"][0]["flatness"]
    assert len(measured) == 1
    assert second != first
    shutil.copy(data / "train" / "ant" / "2.png", data / "train" / "ant" / "1b.png")
    assert "its training images are not those that the supernet was trained on" in vtk(*words).complaint


def test_a_share_goes_on_with_the_others_and_the_first_to_end_assembles(
    vtk: Vtk, trained: Path, tmp_path: Path
) -> None:
    words = ("score", "random:10", "--supernet", trained, *SCORE, *CPU, "--metric", "flatness")
    whole = vtk(*words, "--store", "one", "--json").object
    task = (*words, "--store", "two", "-o", "run", "--json")
    with calls_of(ResultStore, "put") as kept:
        said = [vtk(*task, "--shard", share).object for share in ("1/2", "0/2")]
    assert said[0] == whole
    assert (said[1]["pieces"], said[1]["run_folder"]) == (10, str(tmp_path / "run"))
    assert len({key for key, _ in kept}) == len(kept) == 20 + 1, "and what was assembled"
    with calls_of(Scorer, "measure") as measured:
        assert vtk(*words, "--store", "two", "--json").object == whole
    assert not measured


@pytest.mark.slow
def test_two_processes_on_two_devices_are_one(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    words = ("score", "random:8", "--supernet", trained, *SCORE, "--json")
    whole = vtk(*words, "--store", "one").object
    with calls_of(Scorer, "measure") as measured:
        assert vtk(*words, "--store", "two", "--devices", "cpu,cpu").object == whole
    assert not measured, "the processes measured everything"


# The evolution


@pytest.mark.slow
def test_processes_that_take_what_nobody_works_on_find_what_one_finds(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    words = ("evolve", "--supernet", str(trained), *SCORE, *EVOLUTION, *CPU)
    alone = vtk(*words, "--store", "one", "--json").object
    command = [sys.executable, "-m", "vtk_cli", "search", *words, "--store", "two", "--shard", "queue", "--json"]
    helpers = [subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, cwd=tmp_path) for _ in range(2)]
    said = [json.loads(helper.communicate()[0]) for helper in helpers]
    assert said == [{"shard": "queue", "pieces": 18 + 1}] * 2
    with calls_of(Scorer, "measure") as measured:
        assert vtk(*words, "--store", "two", "--json").object == alone
    assert not measured
    assert len([*(tmp_path / "two").rglob("*.json")]) == 36
    assert not [*(tmp_path / "two" / "locks").iterdir()]


def test_a_search_alone_ends_as_the_same_search_of_a_whole_run(vtk: Vtk, trained: Path) -> None:
    whole = vtk("run", *TRAINING, *SCORE, *EVOLUTION, "--no-retrain", "--json").object
    alone = vtk("evolve", "--supernet", trained, *SCORE, *EVOLUTION, *CPU, "--json").object
    names = ("genes", "score", "evaluated", "pareto", "flops", "params", "supernet_sha256")
    assert {name: alone[name] for name in names} == {name: whole[name] for name in names}


def test_latencies_are_measured_once_and_decide_alike_for_whoever_asks(vtk: Vtk, trained: Path) -> None:
    words = ("evolve", "--supernet", trained, *SCORE, *EVOLUTION, *CPU, "--max-latency", 1000, "--json")
    first = vtk(*words, "--store", "store").object
    with calls_of(ResultStore, "put") as kept:
        assert vtk(*words, "--store", "store").object == first
    assert not kept


def test_what_is_missing_of_a_search_is_named(vtk: Vtk, trained: Path) -> None:
    words = ("evolve", "--supernet", trained, *SCORE, *EVOLUTION, *CPU, "--json")
    assert "6 of 6 scores are missing: noise of " in vtk(*words, "--merge").complaint
    alone = vtk(*words, "--shard", "1/3").object
    assert vtk(*words, "--merge").object == alone


def test_the_newest_supernet_is_the_default(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    assert "there is no trained supernet in runs/search-*" in vtk("score", "all").complaint
    shutil.copytree(trained, tmp_path / "runs" / "search-supernet" / "mine")
    said = vtk("score", "2 0 3", *SCORE, *CPU)
    assert said.code == 0
    (folder,) = (tmp_path / "runs" / "search-score").iterdir()
    assert folder.name.endswith("-digits-digits-mini")
    assert folder.name.count("20") == 1, "the date is there once"
