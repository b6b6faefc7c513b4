"""`vtk prune sweep` as tasks of an array: every search once, whoever is killed, and the table of one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.prune.conftest import TINY, Prune
from tests.tasks import run_tasks

pytestmark = pytest.mark.slow
WORDS = ("sweep", *TINY, "--keeps", 0.1, "--keeps", 0.5, "--seeds", 1, "--device", "cpu", "--json", "--quiet")


def test_tasks_come_to_what_one_process_comes_to(prune: Prune, tmp_path: Path) -> None:
    alone = prune(*WORDS, "--store", "one", "-o", "alone").object
    tasks = [("prune", *WORDS, "--store", "two", "-o", "run", "--shard", shard) for shard in ("11/12", "0/12", "5/12")]
    ended = run_tasks(tasks, ("vtk_cli.prune.sweep",), tmp_path / "log", dies={0: 2})
    assert ended.codes == [-9, 0, 0]
    (kept,) = ended.kept
    assert len(set(kept)) == len(kept) == 6 + 1
    last, assembled = sorted(map(json.loads, ended.said[1:]), key=lambda one: "assembled_by" in one)
    assert assembled["run_folder"] == str(tmp_path / "run")
    assert last["floor"] == alone["floor"]
    assert [_timeless(one) for one in last["searches"]] == [_timeless(one) for one in alone["searches"]]
    assert (tmp_path / "run/sweep.csv").read_bytes() == (tmp_path / "alone/sweep.csv").read_bytes()


def _timeless(search: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in search.items() if name != "seconds"}
