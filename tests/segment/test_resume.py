"""A run that is stopped in any stage, or made by several processes, comes to what one left alone comes to."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.segment.runs import FAST, Call, inputs
from tests.shared_runs import run_together
from vtk_cli.engine.update import Updater
from vtk_cli.errors import ExitCode
from vtk_cli.segment.pseudo.labelling import PSEUDO, ROUGH, UNRESOLVED
from vtk_cli.segment.pseudo.parts import PARTS
from vtk_cli.segment.refine.stage import REFINED

pytestmark = pytest.mark.slow  # whole runs
STOPS = {
    "teacher": (Updater, "__call__", 6),
    "pseudo": ("vtk_cli.segment.pseudo.labelling", "resolved_labels", 7),
    "rough": ("vtk_cli.segment.pseudo.labelling", "_rough_label", 5),
    "refine": (Updater, "__call__", 13),
    "merge": ("vtk_cli.segment.refine.stage", "refine_labels", 4),
    "student": (Updater, "__call__", 17),
}
"""Where a run is when it is stopped: in the call of this number of this function."""
LABELS = (f"pseudo/{PSEUDO}", f"pseudo/{UNRESOLVED}", f"rough/{ROUGH}", f"merge/{REFINED}", "merge/merged.json")
WEIGHTS = ("teacher/model.safetensors", "refine/best.safetensors", "student/model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    for file in LABELS:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    for file in WEIGHTS:
        first, second = load_file(one / file), load_file(other / file)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first), file


@pytest.mark.parametrize("stage", STOPS)
def test_a_run_that_is_stopped_in_a_stage_goes_on_to_the_very_same_end(
    finished: Path, scenes: Path, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    place, name, at = STOPS[stage]
    owner: Any = sys.modules[place] if isinstance(place, str) else place
    function, calls = getattr(owner, name), 0

    def stopping(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            signal.raise_signal(signal.SIGTERM)
        return function(*arguments, **named)

    command = ["run", *inputs(scenes), *FAST, "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopping)
        code, _, err = run(*command)
    assert code == ExitCode.PREEMPTED, err
    assert not (tmp_path / "run" / stage / "stage.json").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "preempted"
    code, _, err = run(*command)
    assert code == ExitCode.DONE, err
    assert_same(finished, tmp_path / "run")
    assert not list((tmp_path / "run").rglob(PARTS))


def test_two_processes_make_the_labels_that_one_makes(finished: Path, scenes: Path, tmp_path: Path) -> None:
    """Each process looks at half of the images; the first alone speaks."""
    runs = {"rough": "looked at", "pseudo": "labelled", "merge": "labelled"}  # each stage takes back those after it
    for run in set(runs.values()):
        shutil.copytree(finished, tmp_path / run)
    commands = [["segment", stage, run, "--redo", "--device", "cpu", "--json"] for stage, run in runs.items()]
    said = run_together(commands, folder=tmp_path, cache=scenes / "cache", preload="vtk_cli.segment.use")
    for (stage, run), (first, second) in zip(runs.items(), said, strict=True):
        assert first.object["stage"] == stage
        assert (second.code, second.out) == (0, "")
        assert (tmp_path / run / stage / "stage.json").read_bytes() == (finished / stage / "stage.json").read_bytes()
    for file in LABELS:
        run = runs[file.partition("/")[0]]
        assert (tmp_path / run / file).read_bytes() == (finished / file).read_bytes(), file
