"""`vtk runs`: what runs left behind, side by side, as a page, and out of the way."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command_line import Said
from vtk_cli.app import main
from vtk_cli.console import Console
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.errors import JobError, Preempted
from vtk_cli.files import lock
from vtk_cli.runs.words import duration, size


@dataclass
class Here:
    """A folder with runs in it."""

    folder: Path

    def add(self, name, *, command="train", epochs=3, lr=0.1, top1=0.9, error=None, seed=0):
        """A run that trained: three rows of metrics, a checkpoint, a table, a summary if it came to one."""
        opened = RunFolder.open(
            command,
            name,
            config={"epochs": epochs, "lr": lr, "seed": seed},
            out=self.folder / name,
            console=Console(quiet=True),
            seed=seed,
            device="cpu",
        )
        try:
            with opened as run:
                rows = [
                    {"epoch": n + 1, "step": n, "loss": 1 / (n + 1), "top1": top1 * n / epochs} for n in range(epochs)
                ]
                (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
                run.checkpoints.mkdir()
                (run.checkpoints / "step.pt").write_bytes(b"0" * 5000)
                (run.path / "per-class.csv").write_text("class,accuracy\n<script>alert(1)</script>,0.5\n")
                if error is not None:
                    raise error
                run.finish({"top1": top1, "best": {"epoch": 2}, "folder": str(run.path)})
        except (JobError, Preempted):
            pass
        return self.folder / name


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(tmp_path / "runs" / "train")


@pytest.fixture
def runs(capsys):
    def said(*words):
        code = main(["runs", *map(str, words)])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return said


def test_runs_are_listed_with_state_and_result_in_the_order_in_which_they_were_started(here, runs):
    here.add("first", top1=0.5)
    here.add("second", error=JobError("the disk is full"))
    found = runs("list", "--json").object["runs"]
    assert [Path(run["folder"]).name for run in found] == ["first", "second"]
    assert [run["status"] for run in found] == ["done", "failed"]
    assert found[0]["result"] == {"top-1": 0.5}
    assert found[1]["message"] == "the disk is full"
    assert [Path(run["folder"]).name for run in runs("list", "--status", "failed", "--json").object["runs"]] == [
        "second"
    ]
    assert [Path(run["folder"]).name for run in runs("list", "--last", "1", "--json").object["runs"]] == ["second"]


def test_a_run_whose_process_is_gone_was_killed_and_one_whose_process_lives_is_running(here, runs):
    path = here.add("gone")
    record = json.loads((path / "run.json").read_text())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid, status in ((ended.pid, "killed"), (os.getpid(), "running")):
        (path / "run.json").write_text(json.dumps(record | {"status": "running", "pid": pid}))
        assert runs("list", "--json").object["runs"][0]["status"] == status


def test_without_runs_the_list_says_how_to_make_one(here, runs):
    assert "there are no runs here" in runs("list").out
    assert runs("list", "--json").object == {"runs": []}


def test_what_is_torn_is_passed_over(here, runs):
    path = here.add("torn")
    (path / "summary.json").write_text('{"top1": 0.')
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')
    found = runs("show", path, "--json").object
    assert found["summary"] == {}
    assert found["last_row"] == {"epoch": 3.0, "step": 2.0, "loss": pytest.approx(1 / 3), "top1": pytest.approx(0.6)}


def test_a_run_is_shown_with_its_numbers_files_and_how_to_repeat_it(here, runs):
    path = here.add("shown", top1=0.75)
    said = runs("show", path, "--verbose").out
    for fact in ("done", "75.0%", "metrics.jsonl", "epochs", f"vtk train --config {path / 'config.toml'}"):
        assert fact in said


def test_a_comparison_names_the_options_that_differ_and_only_those(here, runs):
    paths = [here.add("slow", lr=0.1, seed=1, top1=0.5), here.add("fast", lr=0.4, seed=1, top1=0.7)]
    found = runs("compare", *paths, "--json").object
    assert found["options"] == {"lr": ["0.1", "0.4"]}
    assert [numbers["top1"] for numbers in found["numbers"]] == [0.5, 0.7]
    said = runs("compare", *paths).out
    assert "50.0%" in said
    assert "best.epoch" not in said
    assert "best.epoch" in runs("compare", *paths, "--all").out


def test_one_run_cannot_be_compared_and_a_folder_without_a_run_is_refused(here, runs):
    path = here.add("one")
    assert "nothing to be compared with" in runs("compare", path, path).complaint
    assert "holds no run" in runs("show", here.folder).complaint
    assert "is no folder" in runs("list", here.folder / "none").complaint
    assert "did you mean done" in runs("list", "--status", "don").complaint
    assert "there are runs of train" in runs("list", "--command", "prune").complaint


def test_the_page_of_a_run_holds_curves_tables_options_and_obeys_no_name_in_them(here, runs):
    path = here.add("paged", error=Preempted("stopped"))
    page = Path(runs("report", path, "--json").object["report"])
    assert page == path / "run.html"
    text = page.read_text()
    assert text.count("data:image/svg+xml") == 1
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    for fact in ("This run is preempted: stopped", "per-class.csv", "epochs", "sitting"):
        assert fact in text


def test_the_page_of_several_runs_compares_them(here, runs):
    paths = [here.add("slow", lr=0.1), here.add("fast", lr=0.4)]
    page = Path(runs("report", *paths, "-o", "both.html", "--json").object["report"])
    text = page.read_text()
    for fact in ("2 runs side by side", "Options that differ", "0.4", "data:image/svg+xml"):
        assert fact in text
    assert "is a folder" in runs("report", *paths, "-o", here.folder).complaint


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_the_page_shows_in_a_browser_without_a_word_on_its_console(here, runs, tmp_path):
    page = Path(runs("report", here.add("seen"), "--json").object["report"])
    picture = tmp_path / "page.png"
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    offline = ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'user'}"]
    seen = subprocess.run(
        ["chromium", *quiet, *offline, "--enable-logging=stderr", f"--screenshot={picture}", page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert picture.stat().st_size > 10_000
    assert ":CONSOLE" not in seen.stderr


def test_cleaning_removes_checkpoints_of_runs_that_are_done_and_nothing_without_yes(here, runs):
    done, failed = here.add("done"), here.add("failed", error=JobError("no"))
    preempted = here.add("later", error=Preempted("stopped"))
    would_go = runs("clean", "--json").object
    assert would_go == {"removed": False, "bytes": 5000, "folders": ["runs/train/done/checkpoints"]}
    assert (done / "checkpoints").is_dir()
    runs("clean", "--yes")
    assert not (done / "checkpoints").exists()
    assert (done / "summary.json").is_file()
    runs("clean", "--yes", "--failed", "--older-than", "1")
    assert failed.is_dir()
    runs("clean", "--yes", "--failed")
    assert not failed.exists()
    assert (preempted / "checkpoints" / "step.pt").is_file()


def test_a_run_that_a_process_has_taken_up_is_not_cleaned(here, runs):
    path = here.add("busy")
    with lock(path / ".lock"):
        assert runs("clean", "--yes", "--json").object["folders"] == []
    assert (path / "checkpoints").is_dir()


def test_times_and_sizes_read_well():
    times = {None: "", 0.4: "0 s", 59.4: "59 s", 60: "1 min", 3725: "1 h 2 min", 90000: "1 d 1 h"}
    assert {seconds: duration(seconds) for seconds in times} == times
    sizes = {0: "0 B", 999: "999 B", 1000: "1 kB", 999_499: "999 kB", 1_400_000: "1.4 MB"}
    assert {count: size(count) for count in sizes} == sizes
