from __future__ import annotations

from pathlib import Path

import pytest

from vtk_cli.errors import UserError
from vtk_cli.segment.stages import NEEDS, RECORD, STAGES, StageInputs, dependents, finish_stage, forget_stage, is_done


@pytest.fixture
def done(tmp_path: Path) -> tuple[Path, StageInputs]:
    """A stage that is done, and what it was made from."""
    (tmp_path / "weak.json").write_text("{}")
    folder = tmp_path / "pseudo"
    folder.mkdir()
    (folder / "pseudo.json").write_text("[1]")
    inputs = StageInputs({"weak.json": tmp_path / "weak.json"}, {"mode": "random", "seed": 0})
    assert not is_done(folder, "pseudo", inputs)
    finish_stage(folder, inputs, ["pseudo.json"])
    return folder, inputs


def test_a_stage_that_is_done_is_passed_over_until_it_is_forgotten(done: tuple[Path, StageInputs]) -> None:
    folder, inputs = done
    assert is_done(folder, "pseudo", inputs)
    forget_stage(folder)
    assert not is_done(folder, "pseudo", inputs)
    forget_stage(folder)


@pytest.mark.parametrize("damage", ["missing output", "torn output", "torn record"])
def test_a_stage_with_damaged_results_is_made_again(done: tuple[Path, StageInputs], damage: str) -> None:
    folder, inputs = done
    if damage == "missing output":
        (folder / "pseudo.json").unlink()
    elif damage == "torn output":
        (folder / "pseudo.json").write_text("[")
    else:
        (folder / RECORD).write_text('{"inputs": {')
    assert not is_done(folder, "pseudo", inputs)


def test_a_changed_file_is_refused_with_the_stages_to_redo(done: tuple[Path, StageInputs]) -> None:
    folder, inputs = done
    inputs.files["weak.json"].write_text('{"more": 1}')
    message = (
        r"stage 'pseudo' was made from other inputs \(weak.json changed\); redo it with --redo pseudo, which redoes"
    )
    with pytest.raises(UserError, match=message + " merge, student too"):
        is_done(folder, "pseudo", inputs)


def test_a_changed_added_or_dropped_setting_is_refused(done: tuple[Path, StageInputs]) -> None:
    folder, inputs = done
    for settings, changed in (
        ({"mode": "inside", "seed": 0}, "mode"),
        ({"mode": "random"}, "seed"),
        ({"mode": "random", "seed": 0, "sigma": 0.5}, "sigma"),
    ):
        with pytest.raises(UserError, match=rf"\({changed} changed\)"):
            is_done(folder, "pseudo", StageInputs(inputs.files, settings))


def test_an_input_that_is_missing_is_named(done: tuple[Path, StageInputs], tmp_path: Path) -> None:
    folder, inputs = done
    lost = StageInputs({**inputs.files, "teacher": tmp_path / "model.safetensors"})
    with pytest.raises(UserError, match="what the stage reads is missing: teacher"):
        is_done(folder, "pseudo", lost)
    with pytest.raises(UserError, match="what the stage reads is missing: teacher"):
        finish_stage(folder, lost, [])


def test_everything_after_the_teacher_depends_on_it_and_nothing_on_the_student() -> None:
    assert dependents("teacher") == STAGES[1:]
    assert dependents("rough") == ("refine", "merge", "student")
    assert dependents("pseudo") == ("merge", "student")
    assert dependents("student") == ()
    assert all(STAGES.index(need) < STAGES.index(stage) for stage, needs in NEEDS.items() for need in needs)
