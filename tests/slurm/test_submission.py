"""Submission, status, logs and cancelling, with Slurm's programs played by a script."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Said
from vtk_cli.app import main

SBATCH = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$HERE/asked"
case "$(basename "$0")" in
  sbatch) cp "${@: -1}" "$HERE/submitted.sh"; echo "${ANSWER-41;cluster}" ;;
  squeue) cat "$HERE/queue" 2>/dev/null || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; } ;;
  sacct) cat "$HERE/accounts" 2>/dev/null || exit 1 ;;
esac
"""
DIGITS = ("train", "--images-per-class", "2", "--epochs", "1")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory beside a folder of programs that are called as Slurm's are."""
    programs, here = tmp_path / "programs", tmp_path / "here"
    programs.mkdir()
    here.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        (programs / name).write_text(SBATCH)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.chdir(here)
    return tmp_path


@pytest.fixture
def vtk(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `vtk slurm`."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = main(["slurm", *map(str, words)])
        return Said(code, *capsys.readouterr())

    return call


def queue(place: Path, *tasks: tuple[str, str, str, int, str, str]) -> None:
    """What the queue holds: job, state, time, restarts, host, reason."""
    (place / "queue").write_text("".join("|".join(map(str, task)) + "\n" for task in tasks))


def asked(place: Path) -> list[str]:
    """What Slurm's programs were asked, in order."""
    return (place / "asked").read_text().splitlines() if (place / "asked").exists() else []


def record(run: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run, "slurm", "job.json").read_text())
    return found


def test_a_job_is_on_record_before_it_may_start(vtk: Callable[..., Said], place: Path) -> None:
    found = vtk("submit", "--no-check", "--json", "--", *DIGITS).object
    assert (found["job"], found["tasks"]) == ("41", None)
    run = Path(found["run"])
    assert run.parent == Path("runs", "train")
    assert record(run)["job"] == "41"
    assert record(run)["words"] == ["train", "--out", str(run), *DIGITS[1:]]
    assert asked(place) == [f"sbatch --parsable --hold {run}/slurm/job.sh", "scontrol release 41"]
    assert (place / "submitted.sh").read_text() == (run / "slurm" / "job.sh").read_text()
    assert f"#SBATCH --output={run.resolve()}/slurm/slurm-%j.out\n" in (place / "submitted.sh").read_text()


def test_two_jobs_of_a_day_have_two_folders_and_a_percent_sign_is_no_pattern(
    vtk: Callable[..., Said], place: Path
) -> None:
    first, second = (vtk("submit", "--no-check", "--json", "--", *DIGITS).object["run"] for _ in range(2))
    assert second == f"{first}-2"
    run = vtk("submit", "--no-check", "--json", "--", *DIGITS, "--out", "100%j").object["run"]
    assert run == "100%j"
    assert "/100%%j/slurm/slurm-%j.out" in (place / "submitted.sh").read_text()


def test_the_config_is_kept_as_it_was_when_the_job_was_submitted(vtk: Callable[..., Said]) -> None:
    Path("c.toml").write_text('epochs = 3\nout = "there"\n[slurm]\npartition = "p"\n')
    found = vtk("submit", "--no-check", "--json", "--", "train", "--config=c.toml").object
    assert found["run"] == "there"
    Path("c.toml").write_text("epochs = 4\n")
    assert record("there")["words"] == ["train", "--config=there/slurm/config.toml"]
    assert Path("there/slurm/config.toml").read_text().startswith("epochs = 3")


def test_a_command_without_a_run_folder_has_a_folder_for_its_job(vtk: Callable[..., Said]) -> None:
    found = vtk("submit", "--json", "--job-name", "lists", "--", "data", "list").object
    assert Path(found["run"]).parent == Path("runs", "slurm")
    assert found["run"].endswith("-lists")
    assert record(found["run"])["words"] == ["data", "list"]


def test_a_run_takes_one_job_at_a_time_and_remembers_those_before(vtk: Callable[..., Said], place: Path) -> None:
    words = ("submit", "--no-check", "--json", "--", *DIGITS, "--out", "there")
    assert vtk(*words).object["job"] == "41"
    queue(place, ("41", "PENDING", "0:00", 0, "", "Resources"))
    assert vtk(*words).complaint == (
        "error: there: job 41 is at work on this run; wait for it, or end it: vtk slurm cancel there"
    )
    queue(place, ("41", "CANCELLED", "0:00", 0, "", "None"))
    assert vtk(*words).object["job"] == "41"
    assert record("there")["earlier"] == ["41"]


@pytest.mark.slow
def test_what_the_command_refuses_is_not_submitted(vtk: Callable[..., Said], place: Path) -> None:
    assert vtk("submit", "--", "train", "nowhere").complaint == "error: no such folder, file or dataset: nowhere"
    assert not asked(place)
    assert not list((place / "here").iterdir())
    assert vtk("submit", "--", *DIGITS, "--device", "cuda", "--precision", "fp32").code == 0  # no GPU is needed here


def test_without_slurm_there_is_one_line_and_no_folder(
    vtk: Callable[..., Said], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place))
    assert vtk("submit", "--no-check", "--", *DIGITS).complaint == (
        "error: there is no Slurm here: `sbatch` is not installed; run this where jobs are submitted;"
        " `vtk slurm script` works anywhere"
    )
    assert not list((place / "here").rglob("slurm"))
    assert vtk("script", "--", *DIGITS).code == 0


def test_a_run_without_a_job_is_named(vtk: Callable[..., Said]) -> None:
    Path("bare").mkdir()
    for verb in ("status", "logs", "cancel"):
        assert vtk(verb, "bare").complaint == "error: bare: no job was submitted for this run"
        assert vtk(verb, "none").complaint == "error: none: is no folder; name the folder of a run"
    assert vtk("status").complaint.startswith("error: runs: no run here has a job; submit one")
    assert vtk("cancel").complaint.startswith("error: there is no run to cancel")


def test_the_status_of_an_array_counts_its_tasks(vtk: Callable[..., Said], place: Path) -> None:
    words = ("--array", "4%2", "--", "similarity", "a", "b")
    run = vtk("submit", "--no-check", "--json", *words).object["run"]
    queue(
        place,
        ("41_0", "COMPLETED", "59:00", 0, "n1", "None"),
        ("41_1", "RUNNING", "1-00:00:01", 2, "n2", "None"),
        ("41_2", "RUNNING", "2:00:00", 1, "n1", "None"),
        ("41_3", "PENDING", "0:00", 0, "", "JobArrayTaskLimit"),
    )
    Path(run, "metrics.jsonl").write_text('{"epoch": 1, "loss": 2.5}\n{"epoch": 2, "loss": null}\n{"epo')
    assert vtk("status", "--json").object["runs"] == [
        {
            "run": run,
            "job": "41",
            "state": "1 COMPLETED, 2 RUNNING, 1 PENDING",
            "status": "",
            "progress": {"epoch": 2, "loss": None},
            "restarts": 3,
            "host": "n1,n2",
            "elapsed": "1-00:00:01",
            "reason": "JobArrayTaskLimit",
        }
    ]
    assert vtk("status").code == 0


def test_what_the_queue_has_forgotten_the_accounts_may_know(vtk: Callable[..., Said], place: Path) -> None:
    vtk("submit", "--no-check", "--", *DIGITS, "--out", "runs/train/there")
    assert vtk("status", "--json").object["runs"][0]["state"] == "GONE"
    (place / "accounts").write_text("41|CANCELLED by 1000|00:10:00|n7\n")
    shown = vtk("status", "--json").object["runs"][0]
    assert (shown["state"], shown["elapsed"], shown["host"], shown["restarts"]) == ("CANCELLED", "00:10:00", "n7", None)
    assert vtk("cancel", "runs/train/there").complaint == (
        "error: runs/train/there: job 41 is no longer in the queue: CANCELLED"
    )


def test_a_cancelled_job_is_first_kept_from_coming_back(vtk: Callable[..., Said], place: Path) -> None:
    vtk("submit", "--no-check", "--", *DIGITS, "--out", "there")
    queue(place, ("41", "RUNNING", "0:10", 0, "n1", "None"))
    assert vtk("cancel", "there", "--json").object == {"cancelled": [{"run": "there", "job": "41"}]}
    assert asked(place)[-2:] == ["scontrol update JobId=41 Requeue=0", "scancel 41"]


def test_the_log_of_the_task_that_wrote_last_is_shown(vtk: Callable[..., Said], place: Path) -> None:
    run = Path(vtk("submit", "--no-check", "--json", "--array", "2", "--", "similarity", "a", "b").object["run"])
    for task, age in ((0, 10), (1, 20)):
        log = run / "slurm" / f"slurm-41_{task}.out"
        log.write_text("".join(f"task {task} line {line}\n" for line in range(30)))
        os.utime(log, (10**9 - age, 10**9 - age))
    assert vtk("logs", run, "-n", 2).out == "task 0 line 28\ntask 0 line 29\n"
    assert vtk("logs", run, "-n", 1, "--task", 1, "--json").object["lines"] == ["task 1 line 29"]
    assert "job 41 (task 7) has written nothing yet" in vtk("logs", run, "--task", 7).complaint
    assert "--follow --json: what goes on has no end" in vtk("logs", run, "--follow", "--json").complaint
    queue(place, ("41_0", "COMPLETED", "0:10", 0, "n1", "None"))
    assert vtk("logs", run, "-n", 1, "--follow").out == "task 0 line 29\n"


def test_slurm_that_does_not_answer_is_no_mistake_of_the_user(
    vtk: Callable[..., Said], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "squeue"):
        said = "sbatch: error: Batch job submission failed: Unable to contact slurm controller"
        (place / "programs" / name).write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    assert vtk("submit", "--no-check", "--", *DIGITS).failure == (
        "error: sbatch: Slurm does not answer: Batch job submission failed: Unable to contact slurm controller"
    )
