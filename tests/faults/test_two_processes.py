"""Two processes on one run folder or on one cold cache, workers that are killed, and clocks that go backwards."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases import held
from tests.faults.forks import Forks
from tests.faults.trainings import TRAININGS, differing, leftovers

pytestmark = pytest.mark.slow


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_second_process_on_a_run_folder_is_told_who_holds_it_and_harms_nothing(
    forks: Forks, data_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    data, out = data_of(name), tmp_path / "run"
    words = TRAININGS[name].command(out, data)
    assert forks.run(*TRAININGS[name].command(tmp_path / "before", data), folder=data).code == 0  # fills the cache
    first = forks.start(*words, folder=data, hooks=[("hold_at", 2, tmp_path / "held", tmp_path / "go")])
    first.wait_until(tmp_path / "held")
    before = content(out)
    said = forks.run(*words, folder=data)
    assert f"run: this run folder is in use by another process (process {first.process} on " in said.complaint
    assert "wait for it to end or choose another --out" in said.complaint
    assert content(out) == before
    (tmp_path / "go").touch()
    assert first.end().code == 0
    assert json.loads((out / "run.json").read_text())["history"] == []
    held("faults", "two processes on one run folder", "the second: exit 2, one line with the process that holds it")


MAKE = ("data", "make", "digits-m")


def test_two_processes_on_a_cold_cache_make_each_thing_once_and_come_to_the_same(forks: Forks, tmp_path: Path) -> None:
    cache, builds, trainings = tmp_path / "cache", tmp_path / "builds", tmp_path / "trainings"
    hooks = [("note_builds", builds), ("note_checkpoints", trainings)]
    words = TRAININGS["prune run"].command
    both = [forks.start(*MAKE, cache=cache, hooks=hooks) for _ in range(2)]
    both += [forks.start(*words(tmp_path / run, tmp_path), cache=cache, hooks=hooks) for run in ("one", "two")]
    assert [fork.end().code for fork in both] == [0] * 4
    assert not differing(tmp_path / "one", tmp_path / "two")
    assert builds.read_text().split() == ["digits-m"]
    begun = [line for line in trainings.read_text().splitlines() if line.startswith("found ") and str(cache) in line]
    assert len(set(begun)) == len(begun) > 0  # of the network that judges
    assert not leftovers(tmp_path)
    held("faults", "two processes on one cold cache", "exit 0, 0; the same result; datasets and networks made once", 2)


def test_what_a_killed_process_was_making_in_the_cache_is_made_by_the_one_that_waits(
    forks: Forks, tmp_path: Path
) -> None:
    cache, (begun, released, builds) = tmp_path / "cache", (tmp_path / file for file in ("begun", "go", "builds"))
    killed = forks.start(*MAKE, cache=cache, hooks=[("die_in_building", begun, released)])
    killed.wait_until(begun)
    other = forks.start(*MAKE, cache=cache, hooks=[("note_builds", builds)])
    assert other.ended(0.5) is None, "it waits"
    released.touch()
    assert killed.end().code == -signal.SIGKILL
    assert other.end().code == 0
    assert builds.read_text().split() == ["digits-m"]
    assert not leftovers(tmp_path)
    held("faults", "SIGKILL while the cache is filled, and another waits", "exit -9; the other: exit 0, made by it")


@pytest.mark.parametrize("name", ["train", "detect train", "video-pretrain run"])
def test_a_worker_that_is_killed_ends_the_training_in_one_line_and_it_goes_on(
    forks: Forks, data_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    data = data_of(name)
    alone, out = tmp_path / "alone", tmp_path / "run"
    assert forks.run(*TRAININGS[name].command(alone, data), folder=data).code == 0
    words = [*TRAININGS[name].command(out, data), "--workers", "2"]
    fork = forks.start(*words, folder=data, hooks=[("save_often",), ("kill_a_worker", 3)])
    said = fork.end()
    assert "a process that reads data has ended: (pid" in said.failure
    assert said.failure.endswith("run the same command to go on")
    assert not fork.is_followed()
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert forks.run(*words, folder=data).code == 0
    assert not differing(alone, out)
    held("faults", "SIGKILL of a worker that reads data", "exit 1; one line; went on to the same bits")


@pytest.mark.parametrize("name", ["train", "adapt run"])
def test_a_clock_that_goes_backwards_changes_nothing(
    forks: Forks, data_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    data = data_of(name)
    alone, out = tmp_path / "alone", tmp_path / "run"
    assert forks.run(*TRAININGS[name].command(alone, data), folder=data).code == 0
    words = [*TRAININGS[name].command(out, data), *("--checkpoint-seconds", "0")]
    cache = tmp_path / "cache"
    backwards = ("set_clocks_back", 400)
    said = forks.run(*words, folder=data, cache=cache, hooks=[("signal_at", 3, "SIGTERM", 1)])
    assert said.code == 75, said.err
    fork = forks.start(*words, folder=data, cache=cache, hooks=[backwards, ("note_checkpoints", tmp_path / "log")])
    assert fork.end().code == 0
    noted = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert noted.count("saved") > 3
    assert not differing(alone, out)
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "done"
    assert record["ended"] < record["started"] < record["history"][0]["started"]
    shown = forks.run("runs", "show", out, "--json")
    assert shown.code == 0, shown.err
    assert forks.run("runs", "list", tmp_path).code == 0
    held("faults", "the clock goes backwards", "exit 0; checkpoints by seconds, locks and cache as ever; the same bits")
