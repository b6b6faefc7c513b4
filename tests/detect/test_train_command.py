"""`vtk detect train` as a user runs it: what a run holds, resume, other weights, a teacher, other formats."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.detect.coloured_shapes import FAST, one_line, train_arguments
from vtk_cli.detect.objective import Objective


def test_a_run_holds_weights_numbers_and_pictures(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["updates"] == 6
    assert len(summary["boxes"]["classes"]) == 3
    assert {"AP", "AP50", "ARs", "classes"} <= summary["boxes"].keys()
    assert summary["masks"].keys() == summary["boxes"].keys()
    names = {path.name for path in trained.iterdir()}
    assert {"model.safetensors", "ema.safetensors", "best.safetensors", "results.json", "per-class.csv"} <= names
    plots = {path.stem for path in (trained / "plots").iterdir()}
    shown = {"loss", "ap", "batch", "predictions", "confusion", "precision-recall-boxes", "precision-recall-masks"}
    assert shown <= plots
    page = (trained / "report.html").read_text()
    assert page.count("<img") >= len(shown)


def test_the_rows_of_the_epochs_hold_both_kinds_of_ap_of_both_weights(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["epoch"] == 2
    assert {"ap", "ap50", "mask_ap", "ema_ap", "ema_mask_ap"} <= rows[-1].keys()


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(data, run, monkeypatch):
    code, _, err = run(*train_arguments(data), "-o", "whole")
    assert code == 0, err
    call = Objective.__call__

    def stopped(self, model, batch, clock):
        if clock.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return call(self, model, batch, clock)

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "__call__", stopped)
        code, _, err = run(*train_arguments(data), "-o", "parts")
    assert code == 75
    assert not Path("parts/model.safetensors").exists()
    code, _, err = run("train", "--resume", "parts")
    assert code == 0, err
    first, second = (load_file(f"{name}/model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_steps_make_epochs_of_equal_length(data, result):
    summary = result(*train_arguments(data), "--steps", "4", "-o", "run")
    assert (summary["updates"], summary["epochs"]) == (4, 2)


def test_a_dry_run_tells_the_plan_and_writes_nothing(data, run, place):
    code, out, _ = run(*train_arguments(data), "--dry-run")
    assert code == 0
    assert "562,056" not in out  # of ten classes
    assert "6 in 2 epochs" in out
    assert [*place.iterdir()] == []


def test_weights_go_on_to_other_classes_with_a_new_head(data, trained, tmp_path, run):
    content = json.loads((data / "annotations/instances_train2017.json").read_text())
    content["categories"] = [{**one, "name": f"{one['name']} thing"} for one in content["categories"]]
    other = data / "other.json"
    other.write_text(
        json.dumps(content | {"images": [{**i, "file_name": f"train2017/{i['file_name']}"} for i in content["images"]]})
    )
    arguments = ("train", other, "--weights", trained, "--recipe", "digits", "--workers", "0", *FAST)
    code, _, err = run(*arguments)
    assert code == 2
    assert "--reset-head" in one_line(err)
    code, _, err = run(*arguments, "--reset-head", "-o", "run")
    assert code == 0, err
    assert "has no val split" in err


def test_a_teachers_tokens_can_be_matched(data, trained, run):
    student = [*train_arguments(data)]
    student[student.index("vidt-micro")] = "vidt-plus-micro"
    code, _, err = run(*student, "--teacher", trained, "-o", "run")
    assert code == 0, err
    code, _, err = run(*train_arguments(data), "--teacher", trained, "-o", "other")
    assert code == 2
    assert "neck" in one_line(err)


def test_a_loss_that_is_not_finite_names_its_terms_and_images(data, run, monkeypatch):
    from vtk_cli.detect import criterion

    monkeypatch.setattr(criterion, "focal_class_loss", lambda logits, *_: logits.sum((1, 2, 3)) * torch.nan)
    code, _, err = run(*train_arguments(data), "-o", "run")
    assert code == 1
    line = one_line(err)
    assert "at step 1" in line
    assert "class of images" in line


def test_more_objects_than_tokens_are_warned_of(data, run):
    code, _, err = run(*train_arguments(data), "--queries", "1", "--dry-run")
    assert code == 0
    assert "an image has 2 objects, and the detector 1 DET tokens" in err


def test_yolo_data_trains_too(data, tmp_path, run):
    root = tmp_path / "yolo"
    for split in ("train", "val"):
        content = json.loads((data / f"annotations/instances_{split}2017.json").read_text())
        (root / "labels" / split).mkdir(parents=True)
        (root / "images").mkdir(exist_ok=True)
        (root / "images" / split).symlink_to(data / f"{split}2017")
        lines: dict[int, str] = {}
        for one in content["annotations"]:
            x, y, w, h = one["bbox"]
            values = ((x + w / 2) / 72, (y + h / 2) / 60, w / 72, h / 60)
            line = f"{one['category_id'] // 10 - 1} {' '.join(map(str, values))}\n"
            lines[one["image_id"]] = lines.get(one["image_id"], "") + line
        for identity, text in lines.items():
            (root / "labels" / split / f"{identity - 1}.txt").write_text(text)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [red, green, blue]\n")
    code, _, err = run(*train_arguments(root), "--steps", "2", "-o", "run")
    assert code == 0, err
    assert json.loads(Path("run/summary.json").read_text())["classes"] == 3
