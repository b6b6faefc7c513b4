"""`vtk search tabulate` and `rank` as a user runs them: trainings once, true orders, and every benchmark file."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.search.benchmark_files import ARCHS
from tests.search.command_line import SCORE, Vtk, calls_of, terminated_at, tree
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.search.retrain_preparation import RetrainObjective
from vtk_cli.search.scores.scorer import Scorer

CPU = ("--device", "cpu")
SHORT = ("--epochs", 1, *CPU)
SPACE = space_named("digits-mini")


def table(path: Path, accuracy: Any, archs: list[str]) -> Path:
    """A neutral benchmark table, one training of each architecture."""
    rows = [f"{arch},digits,test,20,0,{accuracy(arch)}" for arch in archs]
    path.write_text("\n".join(["arch,dataset,split,hp,seed,accuracy", *rows]) + "\n", encoding="utf-8")
    return path


def some(count: int) -> list[str]:
    return [f"{number // 16} {number // 4 % 4} {number % 4}" for number in range(count)]


# tabulate


def test_a_table_holds_every_training_and_rank_reads_it(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    words = ("tabulate", "--arch", "random:4", "--seeds", 2, *SHORT)
    found = vtk(*words, "-o", "run", "--json").object
    rows = [*csv.DictReader((tmp_path / "run" / "benchmark.csv").open(encoding="utf-8"))]
    assert len(rows) == found["trainings"] == 8
    assert {row["seed"] for row in rows} == {"0", "1"}
    cost = SPACE.cost(SPACE.parse(rows[0]["arch"]), SPACE.shape("stand-alone", 10))
    assert (int(rows[0]["flops"]), int(rows[0]["params"])) == (cost.macs, cost.params)
    ranked = vtk("rank", found["benchmark"], "--supernet", trained, *SCORE, *CPU, "--json").object
    assert ranked["architectures"] == 4
    assert {"flatness", "loss", "accuracy", "angle", "parameters", "MACs"} == ranked["scores"].keys()


def test_a_training_is_made_once_also_by_shares_and_after_a_stop(vtk: Vtk, tmp_path: Path) -> None:
    words = ("tabulate", "--arch", "2 0 3", "--arch", "0 0 1", "--seeds", 2, *SHORT)
    whole = vtk(*words, "--store", "one", "-o", "one-run", "--json").object
    steps = 29  # 1437 images by 50
    with calls_of(RetrainObjective, "__call__", terminated_at(steps + 11)) as before:
        stopped = vtk(*words, "--store", "two")
    assert stopped.code == 75
    assert "run the same command to go on" in stopped.err
    assert len(before) == steps + 11
    with calls_of(RetrainObjective, "__call__") as after:
        by_task = [
            vtk(*words, "--store", "two", "--shard", share, "-o", "task", "--json").object for share in ("0/2", "1/2")
        ]
        shared = vtk(*words, "--store", "two", "-o", "two-run", "--json").object
    assert len(after) == 3 * steps, "what was finished is not begun again"
    assert (tmp_path / "one-run" / "benchmark.csv").read_text() == (tmp_path / "two-run" / "benchmark.csv").read_text()
    assert shared["best"] == by_task[0]["best"] == whole["best"]
    assert by_task[1]["run_folder"] == str(tmp_path / "task")


def test_other_images_under_the_same_name_are_trained_on_anew(vtk: Vtk, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    words = ("tabulate", "data", "--space", "chain-a", "--arch", "0 1 2", "--seeds", 1, "--batch-size", 4, *SHORT)
    with calls_of(RetrainObjective, "__call__") as steps:
        assert vtk(*words, "--workers", 0).code == 0
        assert len(steps) == 3
        assert vtk(*words, "--workers", 0).code == 0
        assert len(steps) == 3
        shutil.copy(tmp_path / "data/train/ant/2.png", tmp_path / "data/train/ant/1.png")
        assert vtk(*words, "--workers", 0).code == 0
    assert len(steps) == 6


# rank


def test_scores_of_a_file_are_ranked_without_a_supernet(vtk: Vtk, tmp_path: Path) -> None:
    truth = table(tmp_path / "truth.csv", lambda arch: 50 + some(12).index(arch), some(12))
    lines = [f"{arch},{number},{-number}" for number, arch in enumerate(some(12))]
    (tmp_path / "scores.csv").write_text("\n".join(["arch,score,loss", *lines]) + "\n", encoding="utf-8")
    words = ("rank", truth, "--scores", "scores.csv", "--space", "digits-mini", "--top", 3)
    said = vtk(*words, "-o", "run")
    assert said.code == 0
    assert all(len(line) <= 80 for line in said.out.splitlines()[:-1])
    found = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    for name in ("score", "loss"):
        one = found["scores"][name]
        assert one["tau"]["value"] == one["spearman"]["value"] == 1
        assert one["regret"] == 0
    assert {"ranking.csv", "ranking.json", "report.html", "plots/ranking.png"} <= tree(tmp_path / "run").keys()


def test_constant_scores_are_undefined_not_zero(vtk: Vtk, tmp_path: Path) -> None:
    truth = table(tmp_path / "truth.csv", lambda arch: 50 + some(12).index(arch), some(12))
    lines = [f"{arch},1" for arch in some(12)]
    (tmp_path / "scores.csv").write_text("\n".join(["arch,score", *lines]) + "\n", encoding="utf-8")
    said = vtk("rank", truth, "--scores", "scores.csv", "--space", "digits-mini", "--json")
    assert said.object["scores"]["score"]["tau"]["value"] is None


def test_a_ranking_measures_nothing_twice_and_equals_that_of_its_scores(
    vtk: Vtk, trained: Path, tmp_path: Path
) -> None:
    truth = table(tmp_path / "truth.csv", lambda arch: 50 + some(9).index(arch), some(9))
    words = ("--supernet", trained, *SCORE, *CPU)
    with calls_of(Scorer, "measure") as measured:
        first = vtk("rank", truth, *words, "--json").object
        assert vtk("rank", truth, *words, "--json").object == first
        scores = vtk("score", *some(9), *words, "-o", "scores", "--json").object
    assert len(measured) == 2 * 9, "noise and angle of each"
    assert len(scores["architectures"]) == 9
    ranked = vtk("rank", truth, "--scores", "scores/scores.csv", "--space", "digits-mini", "--json").object
    for name in ("flatness", "loss", "accuracy", "angle"):
        assert ranked["scores"][name] == first["scores"][name]


def test_a_benchmark_of_cells_is_joined_by_its_strings(vtk: Vtk, tmp_path: Path) -> None:
    rows = {arch: 90.0 - number for number, arch in enumerate(ARCHS)}
    truth = table(tmp_path / "truth.csv", rows.get, [*ARCHS])
    lines = [f"{arch},{value}" for arch, value in rows.items()]
    (tmp_path / "scores.csv").write_text("\n".join(["arch,score", *lines]) + "\n", encoding="utf-8")
    found = vtk("rank", truth, "--scores", "scores.csv", "--json").object
    assert found["space"] == "nasbench201"
    assert found["scores"]["score"]["tau"]["value"] == 1


class Run:
    """Touches a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was-run"),))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such"),
        (b"", ""),
        (b"arch,dataset\n", ""),
        (b"arch,dataset,split,hp,seed,accuracy\n2 0 3,digits,test,20,0,ninety\n", "truth.csv:2"),
        (b"arch,dataset,split,hp,seed,accuracy\n2 0 9,digits,test,20,0,90\n", ""),
        (b"arch,dataset,split,hp,seed,accuracy\n2 0 3,digits,test,20,0,90\n0 0 0,digits,test,20,0,80\n", "3"),
    ],
    ids=["missing", "empty", "few columns", "no number", "other architectures", "two architectures"],
)
def test_a_benchmark_that_is_none_is_named_in_a_line(
    vtk: Vtk, trained: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "truth.csv").write_bytes(content)
    assert said in vtk("rank", "truth.csv", "--supernet", trained, *SCORE, *CPU).complaint
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["nb201_cifar10_full_training.pickle", "NAS-Bench-201-v1_1-096897.pth"])
def test_a_pickle_runs_nothing(vtk: Vtk, trained: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"meta_archs": Run()}))
    assert name in vtk("rank", name, "--supernet", trained).complaint
    assert not (tmp_path / "was-run").exists()


def test_scores_and_benchmark_without_a_common_architecture_are_refused(vtk: Vtk, tmp_path: Path) -> None:
    truth = table(tmp_path / "truth.csv", lambda _arch: 50, some(5))
    (tmp_path / "scores.csv").write_text("arch,score\n3 3 3,1\n", encoding="utf-8")
    words = ("rank", truth, "--space", "digits-mini", "--scores", "scores.csv")
    assert "no architecture in common" in vtk(*words).complaint
    (tmp_path / "scores.csv").write_text("arch,score\n0 0 0,1\n0 0 1,2\n", encoding="utf-8")
    assert "3" in vtk(*words).complaint
    (tmp_path / "scores.csv").write_text("arch,score\n0 0 0,1\n0 0 0,2\n", encoding="utf-8")
    assert "scores.csv:3: 0 0 0 comes twice" in vtk(*words).complaint
