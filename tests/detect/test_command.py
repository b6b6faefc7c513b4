"""`vtk detect` as a user runs it: training, resume, what is done with the weights, and wrong input."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vtk_cli.app import main
from vtk_cli.detect.checkpoint import save_official
from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.network import build_detector
from vtk_cli.detect.objective import Objective

SIZE = 64
FAST = ["--size", str(SIZE), "--epochs", "2", "--warmup-steps", "1", "--batch-size", "4", "--seed", "3"]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230)}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder: 12 images of 72x60 to train on and 6 others, each with two coloured rectangles, with outlines."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    for split, count in (("train2017", 12), ("val2017", 6)):
        write(root, split, [draw(root / split / f"{number}.png", rng) for number in range(count)])
    return root


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty working directory and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path_factory.getbasetemp() / "cache-detect"))
    return tmp_path


@pytest.fixture
def run(capsys):
    """Runs `vtk detect ARGUMENTS`; gives exit code, standard output, standard error."""

    def call(*arguments: object):
        capsys.readouterr()
        code = main(["detect", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def result(run):
    """Runs with --json and gives the object."""

    def call(*arguments: object) -> Any:
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory) -> Path:
    """The run of a small ViDT+ with masks, two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["train", data, "--recipe", "digits", "--model", "vidt-plus-micro", "--masks", "on", "--workers", "0"]
    before = os.environ.get("VTK_CACHE")
    os.environ["VTK_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        code = main(["detect", *map(str, arguments), *FAST, "--ema-decay", "0.5", "-o", str(folder), "--quiet"])
    finally:
        os.environ.pop("VTK_CACHE") if before is None else os.environ.update(VTK_CACHE=before)
    assert code == 0
    return folder


def draw(file: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    """An image with two rectangles, and their annotations without ids."""
    pixels = rng.integers(0, 60, (60, 72, 3), dtype=np.uint8)
    found = []
    for half in (0, 36):
        label = int(rng.integers(3))
        left, top = half + int(rng.integers(2, 8)), int(rng.integers(2, 20))
        width, height = (int(value) for value in rng.integers(12, 26, 2))
        pixels[top : top + height, left : left + width] = [*COLOURS.values()][label]
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        found.append({"category_id": 10 * (label + 1), "bbox": [left, top, width, height], "segmentation": [corners]})
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return found


def write(root: Path, split: str, images: list[list[dict[str, Any]]]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "images": [{"id": 1 + n, "file_name": f"{n}.png", "width": 72, "height": 60} for n in range(len(images))],
        "annotations": [],
        "categories": [{"id": 10 * (n + 1), "name": name} for n, name in enumerate(COLOURS)],
    }
    for number, objects in enumerate(images):
        for one in objects:
            area = one["bbox"][2] * one["bbox"][3]
            entry = {"id": len(content["annotations"]) + 1, "image_id": number + 1, "area": area, "iscrowd": 0}
            content["annotations"].append({**entry, **one})
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return content


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def train_arguments(data: Path, *more: object) -> list[object]:
    return ["train", data, "--recipe", "digits", "--model", "vidt-micro", "--workers", "0", *FAST, *more]


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


def test_eval_gives_what_the_training_said(trained, result):
    said = json.loads((trained / "summary.json").read_text())
    found = result("eval", trained, "-o", "out")
    assert found["boxes"]["AP"] == said["boxes"]["AP"]
    assert found["masks"]["AP"] == said["masks"]["AP"]
    assert {path.name for path in Path("out").iterdir()} == {
        "evaluation.json",
        "results.json",
        "per-class.csv",
        "report.html",
        "plots",
    }
    entries = json.loads(Path("out/results.json").read_text())
    assert {entry["category_id"] for entry in entries} <= {10, 20, 30}
    assert len(entries) == 6 * 60  # 20 DET tokens of 3 classes are fewer than 100


def test_averaged_weights_fewer_layers_and_another_size_see_otherwise(data, trained, result):
    options = ((), ("--which", "ema"), ("--dec-layers", "0"), ("--size", "96"))
    seen = [
        result("predict", data / "val2017/0.png", "--model", trained, "--conf", "0", "-o", "out", *more)
        for more in options
    ]
    assert len({each["images"][0]["objects"][0]["score"] for each in seen}) == len(options)


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


def test_predict_writes_pictures_json_yolo_text_and_crops(data, trained, result):
    found = result(
        "predict", data / "val2017", "--model", trained, "--conf", "0", "--max-det", "4", "--mask", "--save-json",
        "--save-txt", "--crop", "-o", "out",
    )  # fmt: skip
    assert len(found["images"]) == 6
    for one in found["images"]:
        assert len(one["objects"]) == 4
        scores = [each["score"] for each in one["objects"]]
        assert scores == sorted(scores, reverse=True)
        for each in one["objects"]:
            left, top, right, bottom = each["box"]
            assert 0 <= left <= right <= 72
            assert 0 <= top <= bottom <= 60
            assert each["mask"]["size"] == [60, 72]
            assert each["category_id"] == 10 * (each["label"] + 1)
    assert json.loads(Path("out/predictions.json").read_text()) == found
    lines = Path("out/labels/0.txt").read_text().splitlines()
    label, *values = lines[0].split()
    first = found["images"][0]["objects"][0]
    assert int(label) == first["label"]
    assert float(values[0]) == pytest.approx((first["box"][0] + first["box"][2]) / 2 / 72, abs=1e-6)
    assert float(values[4]) == pytest.approx(first["score"], abs=1e-6)
    assert len([*Path("out/crops").rglob("*.jpg")]) <= 24
    assert len([*Path("out").glob("*.jpg")]) == 6


def test_predict_shows_the_classes_that_are_named_alone(data, trained, result, run):
    found = result("predict", data / "val2017/*.png", "--model", trained, "--conf", "0", "--classes", "green")
    assert {each["name"] for one in found["images"] for each in one["objects"]} == {"green"}
    code, _, err = run("predict", data / "val2017", "--model", trained, "--classes", "mauve")
    assert code == 2
    assert "red, green, blue" in one_line(err)


def test_predictions_do_not_depend_on_the_batch(data, trained, result):
    runs = [
        result("predict", data / "val2017", "--model", trained, "--conf", "0", "--batch-size", size, "-o", f"out{size}")
        for size in (1, 4)
    ]
    for one, other in zip(*(found["images"] for found in runs), strict=True):
        ours, theirs = ([each["score"] for each in image["objects"]] for image in (one, other))
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_predict_leaves_out_what_cannot_be_read_and_refuses_where_nothing_can(data, trained, run, result, place):
    Path("broken.png").write_bytes(b"no image")
    found = result("predict", "broken.png", data / "val2017/0.png", "--model", trained, "-o", "out")
    assert [one["file"] for one in found["broken"]] == ["broken.png"]
    code, _, err = run("predict", "broken.png", "--model", trained, "-o", "nothing")
    assert code == 2
    assert "none of 1 files" in one_line(err)
    assert not Path("nothing").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict"], "name images"),
        (["predict", "nowhere.jpg", "--model", "x"], "no such image"),
        (["eval"], "which detector?"),
        (["eval", "nowhere"], "no such run folder or weight file"),
        (["export"], "which detector?"),
        (["convert"], "which file?"),
        (["convert", "nowhere.pth"], "no such file"),
        (["train", "nowhere"], "no such file, folder or embedded dataset"),
        (["train", "--model", "vidt-huge"], "unknown detector"),
        (["train", "--recipe", "papper"], "did you mean paper"),
        (["train", "--weights", "nowhere.pth"], "no such run folder or weight file"),
        (["train", "--reset-head"], "no classifier to replace"),
        (["train", "--augment", "modern"], "one square size"),
        (["train", "--mosaic", "0.5"], "square canvas"),
        (["train", "--resize", "stretch", "--augment", "paper"], "sizes vary"),
        (["train", "--model", "vidt-neck-free-micro", "--masks", "on"], "learns no masks"),
        (["train", "--warmup-steps", "5000"], "leave nothing"),
        (["train", "--min-lr", "1"], "above the learning rate"),
        (["bench", "nowhere"], "no such run folder"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing(arguments, said, run, place):
    code, _, err = run(*arguments)
    assert code == 2
    assert said in one_line(err)
    assert [*place.iterdir()] == []


def faulty(data: Path, tmp_path: Path, change) -> Path:
    """A copy of the training split with one change to its annotations."""
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").symlink_to(data / "train2017")
    (root / "val2017").symlink_to(data / "val2017")
    for split in ("train2017", "val2017"):
        content = json.loads((data / f"annotations/instances_{split}.json").read_text())
        if split == "train2017":
            change(content)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def set_box(content, number, box):
    content["annotations"][number]["bbox"] = box


FAULTS = {
    "2 x box": lambda content: [set_box(content, number, [-30, 3, 12, 12]) for number in (0, 4)],
    "box has no area": lambda content: set_box(content, 1, [3, 3, 0, 12]),
    "box": lambda content: set_box(content, 1, [float("nan"), 3, 5, 12]),
    "category": lambda content: content["annotations"][2].update(category_id=77),
    "twice": lambda content: content["images"][1].update(id=1),
    "missing": lambda content: content["images"][1].update(file_name="not-there.png"),
    "outside": lambda content: content["images"][1].update(file_name="../../../etc/passwd"),
}


@pytest.mark.parametrize("said", FAULTS)
def test_wrong_entries_are_refused_with_their_count_and_nothing_is_written(said, data, tmp_path, run):
    root = faulty(data, tmp_path, FAULTS[said])
    code, _, err = run(*train_arguments(root))
    assert code == 2
    line = one_line(err)
    assert said in line
    assert "wrong entries" in line
    assert "--skip-bad" in line
    assert not Path("runs").exists()


@pytest.mark.parametrize("said", ["2 x box", "category", "missing"])
def test_wrong_entries_can_be_left_out(said, data, tmp_path, run):
    root = faulty(data, tmp_path, FAULTS[said])
    code, _, err = run(*train_arguments(root), "--skip-bad", "--steps", "2", "-o", "run")
    assert code == 0, err
    assert "left out" in err
    assert "left out or mended" in Path("run/report.html").read_text()


def test_crowds_and_images_without_objects_are_no_fault(data, tmp_path, run):
    def change(content):
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 1]
        content["annotations"][0].update(iscrowd=1, segmentation={"size": [60, 72], "counts": [0, 4320]})

    code, _, err = run(*train_arguments(faulty(data, tmp_path, change)), "--steps", "3", "-o", "run")
    assert code == 0, err
    assert "1 crowd" in err
    assert "1 images without objects" in err


def test_data_without_a_single_object_is_refused(data, tmp_path, run):
    root = faulty(data, tmp_path, lambda content: content["annotations"].clear())
    code, _, err = run(*train_arguments(root))
    assert code == 2
    assert "0 annotated images of 12" in one_line(err)


def test_masks_of_objects_without_outlines_are_refused(data, tmp_path, run):
    root = faulty(data, tmp_path, lambda content: [one.pop("segmentation") for one in content["annotations"]])
    code, _, err = run(*train_arguments(root), "--masks", "on")
    assert code == 2
    assert "masks requested but 0 of 24 annotations have segmentation" in one_line(err)


def test_truncated_json_is_refused_with_its_line(data, tmp_path, run):
    root = faulty(data, tmp_path, lambda content: None)
    file = root / "annotations/instances_train2017.json"
    file.write_text(file.read_text()[:200])
    code, _, err = run(*train_arguments(root))
    assert code == 2
    assert "is not JSON" in one_line(err)


def test_weights_of_another_size_are_refused(data, trained, run):
    code, _, err = run(*train_arguments(data), "--weights", trained)
    assert code == 2
    assert "is of another size: neck epff, not projection" in one_line(err)


def test_splits_with_other_classes_are_refused(data, tmp_path, run):
    root = faulty(data, tmp_path, lambda content: content["categories"][0].update(name="crimson"))
    code, _, err = run(*train_arguments(root))
    assert code == 2
    assert "the classes differ" in one_line(err)


def test_eval_on_classes_that_the_detector_does_not_know_is_refused(data, trained, tmp_path, run):
    def change(content):
        content["categories"][0]["name"] = "crimson"

    root = faulty(data, tmp_path, change)
    code, _, err = run("eval", trained, root, "--split", "train")
    assert code == 2
    assert "does not know crimson" in one_line(err)


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


def test_convert_writes_the_published_form_and_reads_it_back(result, run, tmp_path):
    torch.manual_seed(0)
    config = replace(detector_config("vidt-nano", 91), token_offset=0)
    save_official(Path("vidt_nano_50.pth"), build_detector(config).state_dict(), config)
    ours = result("convert", "vidt_nano_50.pth")
    assert (ours["classes"], ours["DET tokens"], ours["decoder layers"]) == (91, 100, 6)
    result("convert", "vidt_nano_50.safetensors", "--to", "official", "-o", "again.pth")
    first, second = (torch.load(name, weights_only=True)["model"] for name in ("vidt_nano_50.pth", "again.pth"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    few = result("convert", "vidt_nano_50.pth", "--coco-classes", "-o", "few.safetensors")
    assert few["classes"] == 80
    code, _, err = run("convert", "vidt_nano_50.safetensors", "-o", "vidt_nano_50.safetensors")
    assert code == 2
    assert "is the file itself" in one_line(err)


def test_a_damaged_file_is_refused_by_convert(run):
    config = replace(detector_config("vidt-nano", 91), token_offset=0)
    save_official(Path("whole.pth"), build_detector(config).state_dict(), config)
    content = torch.load("whole.pth", weights_only=True)["model"]
    content.pop("transformer.decoder.layers.3.linear1.weight")
    torch.save({"model": content}, "part.pth")
    Path("cut.pth").write_bytes(Path("whole.pth").read_bytes()[:10000])
    for name in ("part.pth", "cut.pth"):
        code, _, err = run("convert", name, "-o", "out.safetensors")
        assert code == 2
        assert name in one_line(err)
    assert not Path("out.safetensors").exists()


def test_bench_times_each_precision_with_and_without_boxes(trained, result):
    found = result("bench", trained, "--rounds", "2")
    assert [(row["precision"], row["postprocessed"]) for row in found["latency"]] == [
        ("fp32", False),
        ("fp32", True),
        ("bf16", False),
        ("bf16", True),
    ]
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in found["latency"])
    assert found["size"] == SIZE


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


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="no onnxruntime")
def test_export_writes_a_file_that_was_compared(trained, result):
    found = result("export", trained, "--mask", "-o", "out")
    assert found["share"] <= 1e-4
    assert Path(found["path"]).is_file()
    assert Path("out/model.json").is_file()


def test_export_refuses_sizes_and_batches_that_are_none(trained, run, place):
    for arguments, said in (
        (["--batch", "few"], "no number of images"),
        (["--size", "8"], "no size"),
        (["--size", "64", "--size", "64", "--size", "64"], "no size"),
    ):
        code, _, err = run("export", trained, *arguments, "-o", "out")
        assert code == 2
        assert said in one_line(err)
    assert [*place.iterdir()] == []
