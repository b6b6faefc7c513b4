"""`vtk detect eval|predict|convert|bench|export` as a user runs them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.detect.coloured_shapes import SIZE, one_line
from vtk_cli.detect.checkpoint import save_official
from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.network import build_detector


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
