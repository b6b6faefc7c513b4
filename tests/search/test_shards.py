"""The verbs of `vtk search` as tasks of arrays: every piece once, whoever is killed, and what one process comes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.search.command_line import EVOLUTION, SCORE, Vtk
from tests.tasks import run_tasks

pytestmark = pytest.mark.slow
CPU = ("--device", "cpu", "--json")
MODULES = ("vtk_cli.search.job", "vtk_cli.search.scoring", "vtk_cli.search.tabulating", "vtk_cli.search.rank_job")


def test_tasks_come_to_what_one_process_comes_to(vtk: Vtk, trained: Path, tmp_path: Path) -> None:
    rows = [f"0 {number // 4} {number % 4},digits,test,20,0,{50 + number}" for number in range(8)]
    truth = tmp_path / "truth.csv"
    truth.write_text("\n".join(["arch,dataset,split,hp,seed,accuracy", *rows]) + "\n", encoding="utf-8")
    verbs: dict[str, tuple[object, ...]] = {
        "score": ("score", "random:6", "--supernet", trained, *SCORE, *CPU),
        "evolve": ("evolve", "--supernet", trained, *SCORE, *EVOLUTION, *CPU),
        "rank": ("rank", truth, "--supernet", trained, *SCORE, *CPU, "--resamples", 50),
        "tabulate": ("tabulate", "--arch", "2 0 3", "--arch", "0 0 1", "--seeds", 2, "--epochs", 1, *CPU),
    }
    alone = {verb: vtk(*words, "--store", f"{verb}-1", "-o", f"{verb}-alone").object for verb, words in verbs.items()}
    tasks = [
        ("search", *words, "--store", f"{verb}-2", "-o", f"{verb}-run", "--shard", shard)
        for verb, words in verbs.items()
        for shard in ("4/5", "0/5", "2/5")
    ]
    killed = {3 * number + number % 3: 1 for number in range(len(verbs))}
    ended = run_tasks(tasks, MODULES, tmp_path / "log", dies=killed, size=3)
    assert ended.codes == [-9 if number in killed else 0 for number in range(len(tasks))]
    for kept in ended.kept:
        assert len(set(kept)) == len(kept)
        assert sum(name.startswith("assembled/") for name in kept) == 1
    for number, verb in enumerate(verbs):
        said = [json.loads(ended.said[task]) for task in range(3 * number, 3 * number + 3) if task not in killed]
        last, assembled = sorted(said, key=lambda one: "assembled_by" in one)
        assert _without_places(last) == _without_places(alone[verb])
        assert assembled["run_folder"] == str(tmp_path / f"{verb}-run")
    benchmark = "benchmark.csv"
    assert (tmp_path / "tabulate-run" / benchmark).read_text() == (tmp_path / "tabulate-alone" / benchmark).read_text()


def _without_places(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name != "benchmark"}
