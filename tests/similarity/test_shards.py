"""`vtk similarity` as tasks of an array: networks, answers and rows once each, whoever is killed, and one matrix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tasks import run_tasks
from vtk_cli.app import main

pytestmark = pytest.mark.slow
WORDS = (
    *("similarity", "resnet18", "resnet34", "resnet18@1", "--quick", "--epochs", "2", "--images", "40"),
    *("--steps", "2", "--resamples", "20", "--device", "cpu", "--json"),
)
MODULES = ("vtk_cli.similarity.job", "vtk_cli.similarity.analysis")


def test_tasks_of_which_one_is_killed_come_to_the_matrix_of_one_process_and_make_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", "one")
    assert main([*WORDS, "--out", "alone"]) == 0
    whole = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("VTK_CACHE", "many")
    tasks = [(*WORDS, "--out", "run", "--shard", f"{number}/9") for number in (7, 0, 2)]
    ended = run_tasks(tasks, MODULES, tmp_path / "log", dies={1: 5})
    assert ended.codes == [0, -9, 0]
    assert not ended.said[1]
    first, last = sorted((json.loads(ended.said[number]) for number in (0, 2)), key=len)
    assert last == whole
    assert first["run_folder"] == str(tmp_path / "run")
    assert first["pieces"] == 3
    (kept,) = ended.kept
    kinds = [name.partition("/")[0] for name in kept if not name.startswith("masked")]  # a by-product of attacks
    assert len(set(kept)) >= len(kept) - 1, "what the killed task was at may be made twice"
    pieces = ("network", "clean", "noise", "adversarial", "rows")
    assert {kind: kinds.count(kind) for kind in pieces} == dict.fromkeys(pieces, 3)
    assert kinds.count("assembled") == 1
    for name in ("sat.csv", "transfer.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
