"""A run whose inputs changed is refused, whatever changed, and stays the run that it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.segment.runs import FAST, Call, inputs
from vtk_cli.engine.run_folder import LOCK
from vtk_cli.files import lock


@pytest.fixture
def begun(scenes: Path, run: Call, tmp_path: Path) -> Path:
    """A folder with copies of images (`images`) and weights (`start.safetensors`), and a run of a teacher (`run`)."""
    shutil.copytree(scenes / "train", tmp_path / "images")
    first = ["--out", tmp_path / "before", "--until", "teacher"]
    code, _, err = run("run", *command(scenes, tmp_path / "images"), *first)
    assert code == 0, err
    shutil.copy(tmp_path / "before" / "teacher" / "model.safetensors", tmp_path / "start.safetensors")
    named = ["--weights", tmp_path / "start.safetensors", "--out", tmp_path / "run", "--until", "teacher"]
    code, _, err = run("run", *command(scenes, tmp_path / "images"), *named)
    assert code == 0, err
    return tmp_path


def command(scenes: Path, images: Path) -> list[str]:
    """The options of a run on these images, without validation."""
    given = inputs(scenes)[:4]
    return [*given, "--images", str(images), *FAST]


def test_changed_images_and_changed_weights_are_refused_by_name(begun: Path, run: Call) -> None:
    code, _, err = run("run", "--resume", begun / "run", "--until", "teacher")
    assert code == 0, err
    shutil.copy(begun / "before" / "teacher" / "rough-1.safetensors", begun / "start.safetensors")
    code, _, err = run("run", "--resume", begun / "run", "--until", "teacher")
    assert code == 2
    assert "stage 'teacher' was made from other inputs (--weights changed); redo it with --redo teacher" in err
    shutil.copy(begun / "before" / "teacher" / "model.safetensors", begun / "start.safetensors")
    for file in (begun / "images").iterdir():
        Image.open(file).convert("L").convert("RGB").save(file)
    code, _, err = run("run", "--resume", begun / "run", "--until", "teacher")
    assert code == 2
    assert "stage 'teacher' was made from other inputs (images of --strong changed)" in err


def test_a_refused_option_is_not_taken_for_the_runs_own(begun: Path, run: Call) -> None:
    code, _, err = run("run", "--resume", begun / "run", "--until", "teacher", "--sigma", "0.5")
    assert code == 2
    assert "(sigma changed)" in err
    code, _, err = run("run", "--resume", begun / "run", "--until", "teacher")
    assert code == 0, err
    code, _, err = run("teacher", begun / "run", "--device", "cpu")
    assert code == 0, err
    code, _, err = run("run", "--resume", begun / "run", "--until", "teacher", "--sigma", "0.5", "--redo", "teacher")
    assert code == 0, err
    code, _, err = run("run", "--resume", begun / "run", "--until", "teacher")
    assert code == 0, err


def test_a_stage_by_itself_waits_for_nobody_who_has_the_run(begun: Path, run: Call) -> None:
    with lock(begun / "run" / LOCK):
        code, _, err = run("teacher", begun / "run", "--device", "cpu")
    assert code == 2
    assert "in use by another process" in err


def test_clicks_are_not_shown_to_a_teacher_of_other_classes(scenes: Path, run: Call, tmp_path: Path) -> None:
    strong, clicks = tmp_path / "strong.json", tmp_path / "clicks.csv"
    content = json.loads((scenes / "all_25p_s.json").read_text())
    strong.write_text(json.dumps(content))
    code, _, err = run("points", "make", scenes / "all_25p_w.json", "--images", scenes / "train", "-o", clicks)
    assert code == 0, err
    given = ["--strong", strong, "--weak", clicks, "--images", scenes / "train", *FAST, "--out", tmp_path / "run"]
    code, _, err = run("run", *given, "--until", "teacher")
    assert code == 0, err
    first, second = content["categories"][:2]
    first["name"], second["name"] = second["name"], first["name"]
    strong.write_text(json.dumps(content))
    code, _, err = run("pseudo", tmp_path / "run", "--device", "cpu")
    assert code == 2
    assert "its 10 classes are not the 10 of" in err
