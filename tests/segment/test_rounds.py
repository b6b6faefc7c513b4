"""Further rounds: the student before is the teacher; averaged ones go on from the student, labelled by its average."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.segment.runs import FAST, Call, inputs
from vtk_cli.errors import UserError
from vtk_cli.segment.options import SegmentOptions
from vtk_cli.segment.rounds import round_folders, round_named, rounds_of
from vtk_cli.segment.stages import STAGES

OPTIONS = replace(SegmentOptions(), rounds=2, ema_rounds=2)


def test_each_round_is_labelled_by_the_student_before(tmp_path: Path) -> None:
    first, second, burnt, averaged = rounds_of(tmp_path, OPTIONS)
    assert first.labeller == tmp_path / "teacher" / "model.safetensors"
    assert second.labeller == tmp_path / "student" / "model.safetensors"
    assert burnt.labeller == tmp_path / "round-2" / "student" / "model.safetensors"
    assert averaged.labeller == tmp_path / "ema-1" / "student" / "ema.safetensors"
    assert averaged.start == tmp_path / "ema-1" / "student" / "model.safetensors"
    assert (first.stages, second.stages) == (STAGES, STAGES[1:])
    assert burnt.stages == ("pseudo", "merge", "student")
    assert [each.followed for each in (first, second, burnt, averaged)] == [True, False, False, False]


def test_a_round_is_found_with_those_that_depend_on_it(tmp_path: Path) -> None:
    here, later = round_named(tmp_path, OPTIONS, "round-2")
    assert here.folder == tmp_path / "round-2"
    assert [each.name for each in later] == ["ema-1", "ema-2"]
    with pytest.raises(UserError, match="no round 'round-3'"):
        round_named(tmp_path, OPTIONS, "round-3")


def test_the_last_round_comes_first_by_number_not_by_name(tmp_path: Path) -> None:
    for name in ("round-2", "round-10", "ema-1", "teacher"):
        (tmp_path / name).mkdir()
    assert [path.name for path in round_folders(tmp_path)] == ["ema-1", "round-10", "round-2", tmp_path.name]


@pytest.mark.slow  # a run of three rounds
def test_a_run_of_rounds_is_resumed_evaluated_and_redone(scenes: Path, run: Call, tmp_path: Path) -> None:
    out = tmp_path / "rounds"
    command = ["run", *inputs(scenes), *FAST, "--rounds", 2, "--ema-rounds", 1, "--ema-steps", 3, "--out", out]
    code, _, err = run(*command)
    assert code == 0, err
    students = [out / name / "student" for name in (".", "round-2", "ema-1")]
    ends = [load_file(student / "model.safetensors") for student in students]
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    average = load_file(students[2] / "ema.safetensors")
    assert any(not torch.equal(average[name], ends[2][name]) for name in average)
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["students before"]) == {"round-1", "round-2"}

    code, _, err = run(*command)
    assert (code, err.count("done before")) == (0, 14)  # 6 stages, 5 of the second round, 3 of the averaged one
    code, text, err = run("eval", out, scenes / "val.json", "--images", scenes / "val", "--json")
    assert code == 0, err
    assert json.loads(text)["AP"] == pytest.approx(summary["student"]["AP"])
    code, _, err = run("pseudo", out, "--round", "round-2", "--redo")
    assert code == 0, err
    assert not (out / "ema-1" / "pseudo" / "stage.json").exists()
    code, _, err = run("rough", out, "--round", "ema-1")
    assert code == 2
    assert "has no stage 'rough'" in err
