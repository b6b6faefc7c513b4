"""`vtk slurm` on a real Slurm: jobs that run, are stopped, come back, and end as if nothing had been."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.command_line import Said
from vtk_cli.app import main
from vtk_cli.slurm.job_file import FRUITLESS_ATTEMPTS

pytestmark = pytest.mark.slow
PATIENCE_S = 400.0
TRAIN = (
    *("train", "--images-per-class", "4", "--epochs", "100", "--batch-size", "20", "--workers", "0"),
    *("--model-arg", "embed_dim=16", "--model-arg", "depth=1", "--model-arg", "num_heads=2"),
)
NETWORKS = [f"resnet18@{seed}" for seed in range(6)]
SIMILARITY = (
    "similarity",
    *NETWORKS,
    "--quick",
    "--epochs",
    "2",
    "--images",
    "40",
    "--resamples",
    "20",
    "--steps",
    "3",
)


@pytest.fixture(scope="module", autouse=True)
def place(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which everything happens, with a cache of its own."""
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("VTK_CACHE", str(folder / "cache"))
        yield folder


@dataclass(frozen=True)
class Job:
    """A job that was submitted, and its run folder."""

    number: str
    run: Path

    @property
    def weights(self) -> str:
        """What tells the trained network from any other."""
        return weights_in(self.run)

    @property
    def record(self) -> dict[str, Any]:
        """What the run says of itself."""
        found: dict[str, Any] = json.loads((self.run / "run.json").read_text())
        return found

    @property
    def log(self) -> str:
        """All that its processes said."""
        return "\n".join(path.read_text() for path in sorted((self.run / "slurm").glob("slurm-*.out")))

    def signal(self, name: str) -> None:
        """Send its processes a signal, as Slurm does before the time limit."""
        subprocess.run(["scancel", f"--signal={name}", self.number], check=True)

    def states(self) -> list[str]:
        """Slurm's word for each of its tasks."""
        words = ["squeue", "--noheader", "--states=all", "--array", f"--jobs={self.number}", "--format=%T"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()

    def end(self) -> list[str]:
        """Wait until it is over; its last states."""
        wait_until(lambda: not {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"} & set(self.states()), self)
        return self.states()

    def train_a_while(self, epochs: int = 2) -> None:
        """Wait until a few more epochs are done."""
        wait_until(lambda: lines_in(self.run / "metrics.jsonl") >= epochs, self)


def weights_in(run: Path) -> str:
    """The checksum of the tensors that a training ended with; the rest of the file may be in any order."""
    found = load_file(run / "model.safetensors")
    return hashlib.sha256(b"".join(name.encode() + found[name].tobytes() for name in sorted(found))).hexdigest()


def lines_in(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_until(true: Callable[[], bool], job: Job) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < patience, f"{job.states()}: {job.log}"
        time.sleep(0.1)


@pytest.fixture
def vtk(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `vtk` in this process."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def submit(vtk: Callable[..., Said]) -> Callable[..., Job]:
    """Submits a command with options of the job before it."""

    def call(*words: object, options: tuple[str, ...] = ("--no-check",)) -> Job:
        found = vtk("slurm", "submit", "--json", *options, "--", *words).object
        return Job(found["job"], Path(found["run"]))

    return call


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> str:
    """The weights of a training that nobody stops, in this process and without Slurm."""
    assert main([*TRAIN, "--out", "undisturbed", "--quiet", "--json"]) == 0
    return weights_in(place / "undisturbed")


def test_a_submitted_command_is_tried_first_and_runs_to_done(submit, vtk, undisturbed) -> None:
    job = submit(*TRAIN, options=("--time", "30", "--gpus", "1"))
    assert job.run.parent == Path("runs", "train")
    assert job.end() == ["COMPLETED"]
    assert job.record["status"] == "done"
    assert job.weights == undisturbed
    shown = vtk("slurm", "status", job.run, "--json").object["runs"][0]
    assert {key: shown[key] for key in ("job", "state", "status", "restarts", "host")} == {
        "job": job.number,
        "state": "COMPLETED",
        "status": "done",
        "restarts": 0,
        "host": "localhost",
    }
    assert shown["progress"]["epoch"] == 100
    lines = vtk("slurm", "logs", "--follow", "--lines", 3, job.run).out
    assert lines.splitlines() == [line.rstrip() for line in job.log.splitlines()[-3:]]
    assert vtk("slurm", "cancel", job.run).complaint.endswith(f"job {job.number} is no longer in the queue: COMPLETED")


def test_a_job_that_gets_its_signal_saves_and_is_queued_again_and_ends_with_the_same_weights(
    submit, undisturbed
) -> None:
    job = submit(*TRAIN)
    job.train_a_while()
    job.signal("USR1")
    assert job.end() == ["COMPLETED"]
    assert [attempt["status"] for attempt in job.record["history"]] == ["preempted"]
    assert job.weights == undisturbed
    assert "stopped by SIGUSR1 after saving step" in job.log
    assert "queued again, to go on from what was saved" in job.log


def test_a_job_that_makes_room_for_another_comes_back(submit, undisturbed) -> None:
    job = submit(*TRAIN, options=("--no-check", "--partition", "spare", "--extra=--exclusive"))
    job.train_a_while()
    subprocess.run(["sbatch", "--partition=main", "--exclusive", "--output=/dev/null", "--wrap=true"], check=True)
    assert job.end() == ["COMPLETED"]
    assert [attempt["status"] for attempt in job.record["history"]] == ["preempted"]
    assert "stopped by SIGTERM" in job.log
    assert job.weights == undisturbed


def test_scancel_leaves_a_run_that_resumes_to_the_same_weights_and_no_job(submit, vtk, undisturbed) -> None:
    job = submit(*TRAIN)
    job.train_a_while()
    subprocess.run(["scancel", job.number], check=True)
    assert job.end() == ["CANCELLED"]
    assert job.record["status"] == "preempted"
    again = submit("train", "--resume", job.run)
    assert again.run == job.run
    refused = vtk("slurm", "submit", "--", "train", "--resume", job.run).complaint
    assert f"job {again.number} is at work on this run" in refused
    job.train_a_while(lines_in(job.run / "metrics.jsonl") + 2)
    assert f"job {again.number} is cancelled" in vtk("slurm", "cancel", job.run).out
    assert again.end() == ["CANCELLED"]
    time.sleep(6)  # as long as Slurm keeps a job that was queued again from starting
    assert again.states() == ["CANCELLED"]
    assert vtk("train", "--resume", job.run, "--json").code == 0
    assert job.weights == undisturbed


def test_two_tasks_train_as_one_world_as_torchrun_has_them(submit) -> None:
    words = [*TRAIN, "--device", "cpu"]
    job = submit(*words, options=("--no-check", "--gpus", "2"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launcher, "-m", "vtk_cli", *words, "--out", "launched", "--quiet"], check=True, timeout=PATIENCE_S)
    assert job.end() == ["COMPLETED"]
    assert job.weights == weights_in(Path("launched"))
    assert job.log.count("Look at ") == 1


def test_an_array_with_one_task_killed_gives_the_matrix_of_one_process(submit, vtk) -> None:
    whole = vtk(*SIMILARITY, "--store", "whole", "--json").object
    job = submit(*SIMILARITY, "--store", "rows", options=("--no-check", "--array", "6%3"))
    wait_until(lambda: job.states().count("RUNNING") == 3, job)
    subprocess.run(["scancel", "--signal=KILL", f"{job.number}_1"], check=True)
    assert sorted(job.end()) == ["CANCELLED"] + ["COMPLETED"] * 5
    found = json.loads((job.run / "summary.json").read_text())
    assert np.array_equal(found["sat"], whole["sat"])
    assert np.array_equal(found["transfer"], whole["transfer"])
    assert vtk("slurm", "status", job.run, "--json").object["runs"][0]["state"] in {
        "5 COMPLETED, 1 CANCELLED",
        "1 CANCELLED, 5 COMPLETED",
    }
    assert vtk("slurm", "logs", "--task", 0, job.run).out


def test_a_job_that_is_stopped_again_and_again_before_it_saves_is_given_up(place, vtk) -> None:
    """The job file is the real one; its command ends at once as one that is always told to stop."""
    folder = place / "runs" / "stopped"
    (folder / "slurm").mkdir(parents=True)
    text = vtk("slurm", "script", "--", "train", "--out", folder).out
    step = text.index("srun ")
    script = folder / "slurm" / "job.sh"
    script.write_text(f"{text[:step]}(exit 75)\n{text[text.index('code=$?') :]}")
    words = ["sbatch", "--parsable", f"--output={folder}/slurm/slurm-%j.out", script]
    job = Job(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip(), folder)
    assert job.end() == ["FAILED"]
    assert job.log.count("queued again, to go on") == FRUITLESS_ATTEMPTS - 1
    assert "stopped 5 times in a row before anything new was saved: not queued again" in job.log


def test_a_job_that_waits_is_shown_with_its_reason_and_cancelled_without_a_trace_of_a_run(submit, vtk) -> None:
    job = submit(*TRAIN, options=("--no-check", "--dependency", "afterok:999999", "--job-name", "waiting"))
    shown = vtk("slurm", "status", "--json").object["runs"][-1]
    assert (shown["job"], shown["status"], shown["progress"]) == (job.number, "", {})
    assert vtk("slurm", "logs", job.run).complaint.startswith(
        f"error: {job.run}: job {job.number} has written nothing yet"
    )
    assert vtk("slurm", "cancel", job.run).code == 0
    assert {path.name for path in job.run.iterdir()} == {"slurm"}


def test_what_slurm_refuses_is_said_in_its_words_in_one_line_and_nothing_stays(vtk, place) -> None:
    before = sorted(place.rglob("slurm"))
    said = vtk("slurm", "submit", "--no-check", "--partition", "nowhere", "--", *TRAIN)
    assert said.complaint == (
        "error: sbatch: invalid partition specified: nowhere; Batch job submission failed: "
        "Invalid partition name specified"
    )
    assert sorted(place.rglob("slurm")) == before


def test_a_job_that_slurm_has_forgotten_is_gone(vtk, place) -> None:
    run = place / "runs" / "train" / "forgotten"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"slurm_job": "987654", "status": "preempted", "argv": ["vtk", "train"]}))
    assert vtk("slurm", "status", run, "--json").object["runs"][0]["state"] == "GONE"
    assert vtk("slurm", "cancel", run).complaint == f"error: {run}: job 987654 is no longer in the queue"
