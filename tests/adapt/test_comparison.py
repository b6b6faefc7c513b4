"""Runs as pieces of work: kept, shared, drawn; and what stands on them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from tests.adapt.conftest import TINY, Vtk
from tests.tasks import run_tasks
from vtk_cli.adapt.bench import measure
from vtk_cli.adapt.comparison import table_rows
from vtk_cli.adapt.proof import prove
from vtk_cli.console import Console

COMPARED = ("--recipes", "joint,sequential", "--queries", "random", "--seeds", "0,1", "--store", "store")


def test_a_comparison_is_shared_among_processes_and_nothing_is_made_twice(vtk: Vtk) -> None:
    missing = vtk("compare", *TINY, *COMPARED, "--merge").complaint
    assert "4 of 4 runs are missing: joint / random from seed 0, " in missing
    assert vtk.done("compare", *TINY, *COMPARED, "--shard", "queue")["pieces"] == 4
    kept = {path: path.stat().st_mtime_ns for path in (vtk.folder / "store").glob("*/*.json")}
    assert len(kept) == 4
    found = vtk.done("compare", *TINY, *COMPARED, "-o", "c")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(found["runs"]) == 4
    assert [row["labels"] for row in found["runs"][0]["rounds"]] == [0, 3, 6]
    assert (vtk.folder / "c/report.html").is_file()
    assert all(Path(path).is_file() for path in found["pictures"].values())
    assert len(list(csv.DictReader((vtk.folder / "c/rounds.csv").open()))) == 12
    assert len(list((vtk.folder / "store/sources").glob("*.safetensors"))) == 2  # one a seed, for both recipes
    assert not list((vtk.folder / "store/unfinished").iterdir())


@pytest.mark.slow
def test_tasks_come_to_what_one_process_comes_to(vtk: Vtk) -> None:
    words = ("compare", *TINY, *COMPARED[:-2], "--json", "-q")
    alone = vtk(*words, "--store", "one", "-o", "alone").object
    tasks = [("adapt", *words, "--store", "two", "-o", "run", "--shard", shard) for shard in ("2/3", "1/3", "0/3")]
    ended = run_tasks(tasks, ("vtk_cli.adapt.comparison",), vtk.folder / "log", dies={2: 1})
    assert ended.codes == [0, 0, -9]
    (kept,) = ended.kept
    assert len(set(kept)) == len(kept) == 4 + 1
    last, assembled = sorted(map(json.loads, ended.said[:2]), key=lambda one: "assembled_by" in one)
    assert assembled["run_folder"] == str(vtk.folder / "run")
    assert [one["rounds"] for one in last["runs"]] == [one["rounds"] for one in alone["runs"]]
    for table in ("compare.csv", "rounds.csv"):
        assert (vtk.folder / "run" / table).read_bytes() == (vtk.folder / "alone" / table).read_bytes()
    assert len(list((vtk.folder / "two/sources").glob("*.safetensors"))) == 2


def test_a_run_compared_is_the_run_itself(vtk: Vtk) -> None:
    one = vtk.done("compare", *TINY, "--recipes", "sequential", "--queries", "loss", "--seeds", "0", "-o", "c")
    alone = vtk.done("run", "r", *TINY)
    for ours, theirs in zip(one["runs"][0]["rounds"], alone["metrics"], strict=True):
        assert ours == {name: theirs[name] for name in ours}


def test_the_table_has_means_and_spread_over_seeds() -> None:
    runs = [{"way": "a", "rounds": [{"labels": 2, "acc_test": value}]} for value in (10.0, 20.0, 60.0)]
    assert table_rows(runs, "acc_test") == [("a", "2", "3", "30.0", "26.5", "10.0", "60.0")]


def test_wrong_lists_are_one_line(vtk: Vtk) -> None:
    assert "did you mean joint" in vtk("compare", *TINY, "--recipes", "jont").complaint
    assert "are no seeds" in vtk("compare", *TINY, "--seeds", "2-0").complaint
    (vtk.folder / "flat").mkdir()
    for path in (vtk.folder / "target/cup").iterdir():
        path.rename(vtk.folder / "flat" / path.name)
    assert "no labels to simulate" in vtk("compare", *TINY, "--target", "flat").complaint


@pytest.mark.slow
def test_the_machinery_of_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    proof = prove([0], smallest=True, plots=tmp_path / "plots", device=torch.device("cpu"), console=Console(quiet=True))
    assert [claim.target for claim in proof.claims][1:] == ["at least 3 points more at 10 %, mean of the seeds"] * 3
    assert len(proof.tables[0].rows) == 6
    assert "as measured, not asserted" in proof.not_claimed[0]
    assert all(path.is_file() for path in proof.pictures)
    assert "accuracy" in proof.as_markdown().lower()


@pytest.mark.slow
def test_the_machinery_of_the_bench() -> None:
    rows = measure(smallest=True, device=torch.device("cpu"), console=Console(quiet=True))
    assert len(rows) == 6
    assert all(row.ours > 0 and row.theirs > 0 for row in rows)


@pytest.mark.slow
def test_a_source_that_is_the_target_loses_at_most_two_points_without_labels(vtk: Vtk) -> None:
    options = ("--source", "digits", "--target", "digits", "--preset", "digits", "--device", "cpu", "--rounds", "1")
    short = ("--source-epochs", "6", "--holdout", "0", "--budget", "10")
    before = vtk.done("start", "s", *options, *short, "--recipe", "labelled")["metrics"][0]["acc_pool_all"]
    after = vtk.done("start", "r", *options, *short, "--model", "s/source.safetensors")["metrics"][0]["acc_pool_all"]
    assert before > 97
    assert after >= before - 2
