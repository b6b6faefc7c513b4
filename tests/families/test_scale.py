"""`vtk bench scale`: two processes beside one, and what a save takes."""

from __future__ import annotations

import json

import pytest
import torch

from vtk_cli.app import main
from vtk_cli.console import Console
from vtk_cli.engine.plan import Plan
from vtk_cli.errors import JobError
from vtk_cli.families import scale
from vtk_cli.families.scale_saving import SHARE, saving_row
from vtk_cli.families.scale_training import DEFAULT, Measured, Start, Training, train_once

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_smallest_bench_trains_by_one_and_by_two_processes_and_saves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "scale", "--smallest", "--device", "cpu", "--json", "--quiet"]) == 0
    shared, saved = json.loads(capsys.readouterr().out)["rows"]
    assert min(shared["ours"], shared["theirs"], saved["ours"]) > 0
    assert "by 2 processes of " in shared["name"]
    first, second = (float(loss) for loss in shared["note"].rpartition("validation losses ")[2].split(" and "))
    assert first == pytest.approx(second, rel=0.01)
    assert not list(tmp_path.iterdir())


def test_a_save_is_held_against_its_share_of_the_time_between_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = saving_row("smallest", CPU, saves=1)
    interval = Plan(epochs=1).checkpoint_seconds
    assert row.theirs / (interval + row.theirs) == pytest.approx(SHARE)
    assert row.holds == (row.ours / (interval + row.ours) <= SHARE)
    assert "0.115 M weights" in row.name
    assert float(row.note.partition(" MB")[0]) == pytest.approx(3 * 4 * 0.115, rel=0.05)  # weights and two moments
    assert not list(tmp_path.iterdir())


def test_efficiency_is_the_speed_up_over_the_processes_and_threads_are_a_row_of_their_own(monkeypatch):
    seconds = {Start(2, 3): [6.0, 5.0, 50.0], Start(1, 3): [9.0, 9.0, 9.0], Start(1, 6): [4.5, 0.1, 4.5]}
    monkeypatch.setattr(scale.os, "sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.setattr(scale, "train_once", lambda work, start, device: Measured(seconds[start].pop(0), 2.0))
    monkeypatch.setattr(scale, "saving_row", lambda *arguments, **named: None)
    monkeypatch.setattr(scale, "_work", lambda device, *, smallest: (Training("a network", ()),))
    by_process, by_thread, *_ = scale.measure(smallest=False, device=CPU, console=Console(quiet=True))
    assert (by_process.ours, by_process.theirs, by_process.ratio) == (6.0, 9.0, 1.5)
    assert (by_process.target, by_process.holds) == (1.6, False)
    assert "efficiency 75%" in by_process.note
    assert (by_thread.theirs, by_thread.peer, by_thread.target) == (4.5, "1 process of 6 threads", None)


@pytest.mark.slow
def test_a_training_that_fails_ends_the_bench_with_its_own_words(tmp_path, monkeypatch):
    monkeypatch.setenv("VTK_CACHE", str(tmp_path))
    work = Training("no network", ("--model", "resnet51"))
    with pytest.raises(JobError, match=r"no network by 1 process of 1 thread failed: .*resnet51"):
        train_once(work, Start(1, 1), CPU)


def test_the_default_network_is_the_one_that_vtk_train_takes():
    assert not {"--model", "--model-arg", "--batch-size"} & set(DEFAULT.arguments)
