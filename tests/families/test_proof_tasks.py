"""`vtk proof` as tasks of an array: seeds and baselines once, whoever is killed, and each proof written by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tasks import run_tasks
from vtk_cli.app import main

pytestmark = pytest.mark.slow
WORDS = ("proof", "search", "adapt", "--smallest", "--seeds", "0,1", "--device", "cpu", "--json", "-q")
MODULES = ("vtk_cli.search.proof", "vtk_cli.adapt.proof", "vtk_cli.adapt.comparison")


def test_tasks_write_the_proofs_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "many"))
    assert main([*WORDS, "--out", "run", "--merge"]) == 2
    assert "16 of 16 trainings are missing: 0 0 0 from seed 100, 0 0 0 from seed 101, " in capsys.readouterr().err
    tasks = [(*WORDS, "--out", "run", "--shard", f"{number}/4") for number in (3, 0, 2)]
    ended = run_tasks(tasks, MODULES, tmp_path / "log", dies={1: 2})
    assert ended.codes == [0, -9, 0]
    (kept,) = ended.kept
    assert len(set(kept)) == len(kept)
    assert sum(name.startswith("assembled/") for name in kept) == 2
    said = [json.loads(ended.said[number]) for number in (0, 2)]
    assert sorted(proof["name"] for one in said for proof in one["proofs"]) == ["adapt", "search"]
    assert sum(len(one["assembled_by"]) for one in said) == 2
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "many").rglob("*.json")}
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "one"))
    assert main([*WORDS, "--out", "alone"]) == 0
    for name in ("adapt/proof.json", "search/proof.json", "adapt/proof.md", "search/proof.md"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "many"))
    assert main([*WORDS, "--out", "merged", "--merge"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "many").rglob("*.json")} == there
