"""`vtk segment` as a user runs it: the six stages, going on, redoing, what is done with the result, wrong input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from tests.segment.runs import FAST, Call, inputs
from vtk_cli.engine.run_weights import BEST
from vtk_cli.models.names import file_metadata
from vtk_cli.segment.pseudo.labelling import PSEUDO, ROUGH, UNRESOLVED
from vtk_cli.segment.stages import RECORD, STAGES


@pytest.fixture(autouse=True)
def place(run: Call, tmp_path: Path) -> Path:
    """Every test is in the folder that `run` runs in."""
    return tmp_path


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_leaves_a_record_of_every_stage_and_a_student(finished: Path) -> None:
    assert all((finished / stage / RECORD).is_file() for stage in STAGES)
    assert (finished / "student" / "model.safetensors").is_file()
    assert (finished / "report.html").is_file()
    summary = load(finished / "summary.json")
    assert set(summary["teacher"]) >= {"ap", "pseudo_ap"}
    assert 0 <= summary["student"]["AP"] <= 1


def test_every_click_is_resolved_or_unresolved(finished: Path, scenes: Path) -> None:
    labels = load(finished / "pseudo" / PSEUDO)["annotations"]
    lost = load(finished / "pseudo" / UNRESOLVED)["clicks"]
    clicks = {entry["id"] for entry in load(scenes / "all_25p_w.json")["annotations"]}
    assert {entry["click_id"] for entry in labels}.isdisjoint(entry["click_id"] for entry in lost)
    assert {entry["click_id"] for entry in (*labels, *lost)} == clicks
    assert len(labels) + len(lost) == len(clicks)


def test_the_merged_file_opens_in_pycocotools_and_holds_both_kinds(finished: Path, scenes: Path) -> None:
    merged = COCO(str(finished / "merge" / "merged.json"))
    labels = load(finished / "pseudo" / PSEUDO)["annotations"]
    strong = load(scenes / "all_25p_s.json")["annotations"]
    assert len(merged.anns) == len(labels) + len(strong)
    assert sorted(merged.anns) == list(range(1, len(merged.anns) + 1))
    assert len(merged.imgs) == 24
    for entry in merged.anns.values():
        image = merged.imgs[entry["image_id"]]
        assert merged.annToMask(entry).shape == (image["height"], image["width"])


def test_there_are_rough_masks_of_the_fully_labelled_images_alone(finished: Path, scenes: Path) -> None:
    rough = load(finished / "rough" / ROUGH)["annotations"]
    strong = {image["id"] for image in load(scenes / "all_25p_s.json")["images"]}
    assert rough
    assert {entry["image_id"] for entry in rough} <= strong


def test_a_run_that_is_resumed_makes_nothing_anew(finished: Path, run: Call) -> None:
    before = {stage: (finished / stage / RECORD).stat().st_mtime_ns for stage in STAGES}
    code, _, err = run("run", "--resume", finished)
    assert code == 0, err
    assert "student: done before" in err
    assert before == {stage: (finished / stage / RECORD).stat().st_mtime_ns for stage in STAGES}


def test_a_changed_option_is_refused_with_the_stages_to_redo(finished: Path, run: Call) -> None:
    code, _, err = run("run", "--resume", finished, "--teacher-lr", "0.1")
    assert code == 2
    assert "stage 'teacher' was made from other inputs (teacher_lr changed)" in err
    assert "--redo teacher" in err


def test_a_stage_that_is_made_again_by_itself_gives_the_same(scenes: Path, run: Call, tmp_path: Path) -> None:
    code, _, err = run("run", *inputs(scenes), *FAST, "--out", tmp_path / "run", "--until", "pseudo")
    assert code == 0, err
    before = (tmp_path / "run" / "pseudo" / PSEUDO).read_bytes()
    assert not (tmp_path / "run" / "merge").exists()
    (tmp_path / "run" / "pseudo" / PSEUDO).unlink()
    code, _, err = run("pseudo", tmp_path / "run", "--redo", "--device", "cpu")
    assert code == 0, err
    assert (tmp_path / "run" / "pseudo" / PSEUDO).read_bytes() == before
    code, _, err = run("student", tmp_path / "run", "--device", "cpu")
    assert code == 2
    assert "run the stages before it" in err


def test_a_training_that_was_begun_with_other_options_is_refused(scenes: Path, run: Call, tmp_path: Path) -> None:
    teacher = tmp_path / "run" / "teacher"
    run("run", *inputs(scenes), *FAST, "--out", tmp_path / "run", "--until", "teacher", "--dry-run")
    assert not teacher.exists()
    (teacher / "checkpoints").mkdir(parents=True)
    (teacher / "started.json").write_text('{"sigma": "other"}')
    (tmp_path / "run" / "config.toml").write_text('command = "segment run"\n')
    code, _, err = run("run", *inputs(scenes), *FAST, "--out", tmp_path / "run", "--until", "teacher")
    assert code == 2
    assert "stage 'teacher' was begun with other inputs" in err
    code, _, err = run(
        "run", *inputs(scenes), *FAST, "--out", tmp_path / "run", "--until", "teacher", "--redo", "teacher"
    )
    assert code == 0, err


def test_a_run_without_refinement_merges_the_rough_masks(scenes: Path, run: Call, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, _, err = run("run", *inputs(scenes), *FAST, "--no-refine", "--out", out, "--ignore-unresolved")
    assert code == 0, err
    assert not (out / "rough").exists()
    assert not (out / "refine").exists()
    masks = [entry["segmentation"] for entry in load(out / "pseudo" / PSEUDO)["annotations"]]
    merged = [entry for entry in load(out / "merge" / "merged.json")["annotations"] if entry.get("source") == "pseudo"]
    assert [entry["segmentation"] for entry in merged] == masks


def test_a_network_is_evaluated_by_itself_and_at_clicks(finished: Path, scenes: Path, run: Call) -> None:
    for prompt, name in (("none", "ap"), ("point", "pseudo_ap"), ("classes", "ap_given_classes")):
        code, out, err = run(
            *("eval", finished, scenes / "val.json", "--images", scenes / "val", "--device", "cpu", "--workers", "0"),
            *("--which", "teacher", "--prompt", prompt, "--json", "-o", f"evaluation-{prompt}"),
        )
        assert code == 0, err
        assert json.loads(out)[name] == json.loads(out)["AP"]
        assert Path(f"evaluation-{prompt}/report.html").is_file()


def test_prediction_writes_pictures_and_masks_and_passes_over_what_is_broken(
    finished: Path, scenes: Path, run: Call
) -> None:
    Path("broken.png").write_bytes(b"no image")
    code, out, err = run(
        *("predict", scenes / "val", "broken.png", "--model", finished, "--conf", "0", "--save-masks", "--json"),
        *("--device", "cpu", "-o", "found", "--save-txt"),
    )
    assert code == 0, err
    said = json.loads(out)
    assert said["images"] == 6
    assert len(said["broken"]) == 1
    assert len(list(Path("found").glob("*.jpg"))) == 6
    assert len(list(Path("found").glob("*.png"))) == len(load(Path("found/predictions.json"))) == said["objects"]
    lines = [line.split() for file in Path("found/labels").glob("*.txt") for line in file.read_text().splitlines()]
    assert 0 < len(lines) <= said["objects"]
    assert all(len(line) >= 7 and len(line) % 2 for line in lines)


def test_the_weights_that_did_best_are_kept_and_used(scenes: Path, run: Call, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, _, err = run("run", *inputs(scenes), *FAST, "--no-refine", "--evaluations", 4, "--out", out)
    assert code == 0, err
    for stage, measure in (("teacher", "pseudo_ap"), ("student", "ap")):
        rows = [json.loads(line) for line in (out / stage / "metrics.jsonl").read_text().splitlines()]
        measured = [(row[measure], -row["epoch"]) for row in rows if measure in row]
        assert len(measured) > 1
        value, epoch = max(measured)
        said = file_metadata(out / stage / BEST)
        assert (float(said[measure]), int(said["epoch"])) == (value, -epoch)
    data = ["eval", out, scenes / "val.json", "--images", scenes / "val", "--device", "cpu", "--json"]
    code, text, err = run(*data, "--best")
    assert code == 0, err
    assert json.loads(text)["AP"] == pytest.approx(value)
    (out / "student" / BEST).unlink()
    code, _, err = run(*data, "--which", "student", "--best", "--quiet")
    assert code == 2
    assert "leave out --best" in err


@pytest.mark.slow  # onnxruntime
def test_a_student_is_exported_and_a_teacher_is_not(finished: Path, run: Call) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    code, out, err = run("export", finished, "-o", "onnx", "--batch", "1", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["size"] == [128, 128]
    assert Path("onnx/model.onnx").stat().st_size == said["bytes"]
    assert load(Path("onnx/model.json"))["classes"] == list("0123456789")
    code, _, err = run("export", finished / "teacher", "-o", "onnx")
    assert code == 2
    assert "name a student" in err


def test_the_preview_shows_labels_and_exports_them(finished: Path, run: Call) -> None:
    code, out, err = run(
        "preview", finished, "--missing", "--export", "labelme", "--device", "cpu", "--json", "-o", "look"
    )
    assert code == 0, err
    said = json.loads(out)
    assert said["refined"]
    assert Path(said["page"]).is_file()
    assert len(list(Path("look/labelme").glob("*.json"))) == 18
    code, out, err = run("preview", finished, "--export", "coco", "--order", "iou", "--json", "-o", "look")
    assert code == 0, err
    assert len(COCO("look/pseudo.json").anns) == said["labels"]


def test_points_are_made_of_masks_and_read_back(scenes: Path, run: Call) -> None:
    for name in ("clicks.csv", "clicks.json"):
        code, out, err = run(
            *("points", "make", scenes / "all_25p_w.json", "--images", scenes / "train"),
            *("--mode", "inside", "--json", "-o", name),
        )
        assert code == 0, err
        assert json.loads(out)["clicks"] == len(load(scenes / "all_25p_w.json")["annotations"])
        data = ["--strong", scenes / "all_25p_s.json", "--weak", name, "--images", scenes / "train"]
        code, out, err = run("run", *data, *FAST, "--dry-run", "--json")
        assert code == 0, err
        assert "57 clicks" in json.loads(out)["clicked images"]


def test_a_plan_says_what_hours_suffice_for(scenes: Path, run: Call) -> None:
    code, out, err = run("budget", "--json", "--hours", "4000")
    assert code == 0, err
    said = json.loads(out)
    assert said["seconds"]["masks"] == pytest.approx(646.2, abs=0.1)
    assert said["fraction"] == pytest.approx(
        (4000 - said["hours"]["points"]) / (said["hours"]["masks"] - said["hours"]["points"])
    )
    code, out, _ = run("budget", scenes / "all.json", "--json", "--number", "1000")
    assert code == 0
    assert json.loads(out)["images"] == 1000


def test_what_a_tool_exported_becomes_two_files(scenes: Path, run: Call) -> None:
    code, out, err = run("import", scenes / "all.json", "--images", scenes / "train", "--json", "-o", "labels")
    assert code == 0, err
    said = json.loads(out)
    assert (said["strong_images"], said["weak_images"]) == (24, 0)
    assert Path("labels/strong.json").is_file()


def changed(path: Path, to: str, change: Callable[[Any], None]) -> Path:
    content = load(path)
    change(content)
    Path(to).write_text(json.dumps(content))
    return Path(to)


def _outside(content: Any) -> None:
    content["annotations"][0]["point"] = [900.0, 5.0]


def _unknown(content: Any) -> None:
    content["annotations"][0]["category_id"] = 77


def _missing(content: Any) -> None:
    content["images"][0]["file_name"] = "nowhere.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [(_outside, "point is outside the image"), (_unknown, "category is unknown"), (_missing, "missing")],
)
def test_wrong_clicks_are_refused_in_one_line(
    scenes: Path, run: Call, change: Callable[[Any], None], message: str
) -> None:
    weak = changed(scenes / "all_25p_w.json", "weak.json", change)
    code, _, err = run(
        "run", "--strong", scenes / "all_25p_s.json", "--weak", weak, "--images", scenes / "train", *FAST
    )
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_an_image_that_is_strong_and_weak_is_refused(scenes: Path, run: Call) -> None:
    data = ["--strong", scenes / "all_25p_s.json", "--weak", scenes / "all.json", "--images", scenes / "train"]
    code, _, err = run("run", *data, *FAST)
    assert code == 2
    assert "fully labelled and clicked too" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--strong", "s.json"], "which images are clicked?"),
        (["run", "--weak", "w.json"], "which images are fully labelled?"),
        (["run", "--faithful", "--ignore-unresolved"], "--faithful"),
        (["run", "--rough-at", "2"], "--rough-at"),
        (["run", "--reset-head"], "--reset-head"),
        (["pseudo"], "which run?"),
        (["pseudo", "."], "holds no run"),
        (["preview", "nowhere"], "no such folder"),
        (["eval"], "which network"),
        (["export"], "which network"),
        (["export", "nowhere"], "no such run folder"),
        (["predict", "."], "no images"),
        (["points", "make"], "which data set?"),
        (["split", "make", "nowhere.json"], "no such file"),
        (["import"], "import what?"),
        (["budget", "--hours", "0"], "--hours"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run: Call, arguments: list[str], message: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
