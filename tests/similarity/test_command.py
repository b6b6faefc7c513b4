"""`vtk similarity` as a user runs it: results, resume, shards, and wrong input."""

import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.app import main
from vtk_cli.data.digits import load_digits_split
from vtk_cli.errors import UserError
from vtk_cli.similarity.features import read_features
from vtk_cli.similarity.rows import Rows

pytestmark = pytest.mark.slow
FAST = ["--quick", "--epochs", "2"]
PAIR = ["resnet18", "resnet34", *FAST]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache whose networks are trained once a test session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, cache):
    """An empty working directory and the shared cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(cache))
    return tmp_path


@pytest.fixture
def run(capsys):
    """Runs `vtk similarity ARGUMENTS`; gives exit code, standard output, standard error."""

    def call(*arguments):
        capsys.readouterr()
        code = main(["similarity", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def result(run):
    """Runs with --json and gives the object."""

    def call(*arguments):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory):
    """120 validation digits as PNG files in class folders `0` to `9`."""
    root = tmp_path_factory.mktemp("digits")
    digits = load_digits_split("val")
    for index in range(120):
        folder = root / str(digits.labels[index])
        folder.mkdir(exist_ok=True)
        Image.fromarray(digits.images[index].transpose(1, 2, 0)).save(folder / f"{index:03d}.png")
    return root


@pytest.fixture
def vit_files(run, cache):
    """Two small ViTs trained here, as weight files that describe themselves."""
    code, _, err = run("vit_ti", "vit_ti@1", "--quick", "--epochs", "3", "--images", "20")
    assert code == 0, err
    cards = [json.loads(path.read_text()) for path in cache.glob("digits-networks/*/card.json")]
    keys = {
        card["seed"]: path
        for card, path in zip(cards, cache.glob("digits-networks/*/card.json"), strict=True)
        if card["timm_name"] == "vit_tiny_patch16_224"
    }
    return [keys[0].with_name("model.safetensors"), keys[1].with_name("model.safetensors")]


def one_line(err):
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


# Results


def test_two_networks_end_in_a_score_with_its_controls(run, place):
    code, out, _ = run(*PAIR)
    assert code == 0
    assert re.search(r"SAT\(resnet18, resnet34\) = -?\d\.\d{3}   \(95 % interval", out)
    assert "noise floor" in out
    assert "not ImageNet weights" in out
    folder = next((place / "runs" / "similarity").iterdir())
    for name in (
        "similarity.json",
        "summary.json",
        "sat.csv",
        "transfer.csv",
        "bits.npz",
        "report.html",
        "config.toml",
    ):
        assert (folder / name).stat().st_size > 0
    assert json.loads((folder / "run.json").read_text())["status"] == "done"
    assert (folder / "plots" / "examples.png").exists()


def test_json_is_one_object_and_a_second_run_gives_the_same_numbers(result, place):
    first = result(*PAIR)
    second = result(*PAIR)
    assert first == second
    assert first["sat"][0][1] == first["sat"][1][0]
    assert first["sat"][0][0] == pytest.approx(math.log(100 * first["models"][0]["whitebox"]))
    k = round(first["transfer"][0][1] * first["n_common"][0][1]) + round(
        first["transfer"][1][0] * first["n_common"][0][1]
    )
    assert first["sat"][0][1] == pytest.approx(math.log(max(0.1, 100 * k / (2 * first["n_common"][0][1]))))
    assert first["ci_low"][0][1] <= first["sat"][0][1] <= first["ci_high"][0][1]
    folder = next((place / "runs" / "similarity").iterdir())
    assert json.loads((folder / "summary.json").read_text()) == first


def test_a_run_is_repeated_from_its_config(result, place):
    first = result(*PAIR, "--steps", "3", "--images", "50")
    config = next((place / "runs" / "similarity").glob("*/config.toml"))
    assert result("--config", config) == first


def test_three_networks_make_a_matrix_with_clusters_and_pictures(result, place):
    found = result(
        "resnet18",
        "resnet34",
        "resnet18@1",
        *FAST,
        "--measure",
        "agreement",
        "--measure",
        "cka",
        "--ensembles",
        "--pick-ensemble",
        "2",
        "--suggest-teacher",
        "resnet18",
    )
    assert np.array(found["sat"]).shape == (3, 3)
    assert sum(len(group) for group in found["clusters"]["members"]) == 3
    assert set(found["measures"]["matrices"]) == {"agreement", "cka"}
    assert found["teachers"]["student"] == "resnet18"
    assert len(found["ensemble"]["networks"]) == 2
    folder = next((place / "runs" / "similarity").iterdir())
    for name in ("heatmap.png", "heatmap.svg", "tsne.png", "tsne.svg"):
        assert (folder / "plots" / name).stat().st_size > 1000
    described = read_features(folder / "features.csv")
    assert {name: network.base_architecture for name, network in described.items()} == dict.fromkeys(
        ("resnet18", "resnet34", "resnet18@1"), "CNN"
    )
    assert json.loads((folder / "clusters.json").read_text()) == found["clusters"]


def test_a_network_with_itself_has_the_highest_score_and_is_pointed_out(run):
    attack = ["--eps", "0.5", "--steps", "20", "--step-size", "0.1eps"]
    code, out, err = run("resnet18", "resnet18", *FAST, *attack, "--json")
    assert code == 0
    assert "resnet18 and resnet18 #2 are the same network" in err
    found = json.loads(out)
    assert found["models"][0]["whitebox"] == 1.0
    assert found["sat"][0][1] == pytest.approx(math.log(100))


def test_the_reference_is_the_same_network_from_another_seed_and_the_result_is_still_of_the_pair(run, place):
    code, out, err = run("resnet18", "resnet34", *FAST, "--reference", "--images", "60")
    assert code == 0, err
    found = json.loads(next(place.rglob("summary.json")).read_text())
    assert found["networks"] == ["resnet18", "resnet34", "resnet18@1", "resnet34@1"]
    assert f"SAT(resnet18, resnet34) = {found['sat'][0][1]:.3f}" in out
    for percent in (found["transfer"][0][2], found["transfer_beyond_noise"][0][2]):
        assert f"{100 * percent:.1f}" in out
    assert "images a pair" in out


def test_the_users_own_images_and_weights(result, vit_files, digits_folder):
    found = result(f"vit_ti={vit_files[0]}", vit_files[1], "--data", digits_folder)
    assert found["data"]["n"] == 120
    assert found["attack"]["eps"] == pytest.approx(8 / 255)  # the preset for the user's own data
    assert [model["input_size"] for model in found["models"]] == [32, 32]
    assert all(model["accuracy"] > 0.3 for model in found["models"])
    paper = result(f"vit_ti={vit_files[0]}", vit_files[1], "--data", digits_folder, "--preset", "paper", "--steps", "2")
    assert paper["attack"]["protocol"] == "paper"
    assert paper["attack"]["step_size"] == pytest.approx(0.1 * 8 / 255)


def test_images_without_labels_take_the_class_the_networks_agree_on(result, vit_files, digits_folder, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted(digits_folder.rglob("*.png"))[:40]:
        (flat / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    found = result(vit_files[0], vit_files[1], "--data", flat, "--labels", "agree")
    assert found["models"][0]["accuracy"] == found["models"][1]["accuracy"] > 0


def test_a_published_matrix_can_be_imported(result, place):
    names = ["a", "b", "c", "d", "e", "f"]
    block = np.where(np.arange(6)[:, None] // 3 == np.arange(6) // 3, 4.0, 1.5)
    np.fill_diagonal(block, math.log(100))
    rows = [
        "," + ",".join(names),
        *(f"{name}," + ",".join(map(str, line)) for name, line in zip(names, block, strict=True)),
    ]
    (place / "matrix.csv").write_text("\ufeff" + "\n".join(rows))
    found = result("--import-matrix", "matrix.csv", "--clusters", "2")
    assert sorted(map(sorted, found["clusters"]["members"])) == [["a", "b", "c"], ["d", "e", "f"]]
    assert found["matrix"]["mean"] == pytest.approx((6 * 4.0 + 9 * 1.5) / 15)
    folder = next((place / "runs" / "similarity").iterdir())
    assert (folder / "plots" / "heatmap.png").exists()


# Scale


def test_shards_in_any_order_and_a_merge_give_the_matrix_of_one_run(run, result):
    three = ["resnet18", "resnet34", "resnet18@1", *FAST, "--images", "40", "--resamples", "50"]
    whole = result(*three)
    code, _, err = run(*three, "--store", "rows", "--merge")
    assert code == 2
    assert "3 of 3 networks' answers to clean and noisy images are missing: resnet18, resnet34" in one_line(err)
    assert result(*three, "--store", "rows", "--shard", "2/3", "--out", "run") == whole
    row = sorted(Path("rows/rows").iterdir())[0]
    row.unlink()
    code, _, err = run(*three, "--store", "rows", "--merge")
    assert "1 of 3 rows are missing: resnet" in one_line(err)
    assert run(*three, "--store", "rows", "--shard", "queue")[0] == 0
    assert result(*three, "--store", "rows", "--merge") == whole


def test_a_task_that_comes_when_all_is_done_says_so_and_one_whose_result_is_gone_makes_it_again(result, place):
    words = [*PAIR, "--images", "40", "--resamples", "50", "--store", "rows", "--out", "run"]
    whole = result(*words, "--shard", "5/9")
    made = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file() and "locks" not in path.parts}
    late = result(*words, "--shard", "0/9")
    assert late["run_folder"] == str(place / "run")
    assert late["assembled_by"].startswith("task 5/9 (process ")
    assert all(path.stat().st_mtime_ns == then for path, then in made.items())
    (place / "run" / "summary.json").unlink()
    assert result(*words, "--shard", "0/9") == whole


def test_a_queue_passes_over_rows_at_work_and_nothing_else(run, monkeypatch):
    def fails(*_, **__):
        raise UserError("gives NaN or infinite logits", "resnet18")

    monkeypatch.setattr(Rows, "row", fails)
    code, _, err = run(*PAIR, "--images", "20", "--shard", "queue")
    assert code == 2
    assert "resnet18: gives NaN" in one_line(err)


def test_a_process_a_device_gives_the_matrix_of_one_process(result):
    arguments = [*PAIR, "--images", "40", "--resamples", "50"]
    whole = result(*arguments)
    assert result(*arguments, "--store", "rows", "--devices", "cpu,cpu") == whole


@pytest.mark.parametrize("moment", [0.0, 0.6, 1.5])
def test_a_killed_run_goes_on_and_ends_with_the_same_result(result, place, moment):
    arguments = ["resnet18", "resnet34", "resnet18@1", *FAST, "--resamples", "50"]
    whole = result(*arguments)
    command = [sys.executable, "-m", "vtk_cli", "similarity", *arguments, "--store", "killed", "--out", "killed-run"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(Path("killed").rglob("*.npz")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)  # until the first work is in the store
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert result(*arguments, "--store", "killed", "--out", "killed-run") == whole
    assert not list(Path("killed").rglob(".tmp-*"))
    assert not list(Path("killed-run").rglob(".tmp-*"))


def test_a_signal_ends_with_code_75_and_the_run_goes_on(result, place):
    arguments = [*PAIR, "--steps", "400", "--step-size", "0.001", "--resamples", "50"]
    command = [sys.executable, "-m", "vtk_cli", "similarity", *arguments, "--store", "stopped", "--out", "stopped-run"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(Path("stopped").rglob("noise/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 75, err
    assert "run the same command to go on" in err
    assert json.loads(Path("stopped-run/run.json").read_text())["status"] == "preempted"
    found = result(*PAIR, "--images", "20", "--store", "stopped")
    assert found["networks"] == ["resnet18", "resnet34"]


def test_a_new_name_may_join_an_old_run_and_another_attack_may_not(run, result):
    result(*PAIR, "--out", "run")
    grown = result("resnet18", "resnet34", "resnet18@1", *FAST, "--out", "run")
    assert len(grown["networks"]) == 3
    code, _, err = run("resnet18", "resnet34", "resnet18@1", *FAST, "--out", "run", "--eps", "8/255")
    assert code == 2
    assert "eps" in one_line(err)
    assert json.loads(Path("run/summary.json").read_text()) == grown


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet50", "vit_c"], "unknown network 'vit_c'; did you mean"),
        (["resnet50"], "only resnet50 was given; a similarity is between two networks"),
        ([], "no network was given"),
        (["convnext_t", "resnet18", "--quick"], "no small stand-in for convnext_tiny"),
        (["tv:resnet18", "resnet18"], "only timm architectures are trained here"),
        (["resnet18", "resnet34", "--list", "none.txt"], "none.txt"),
        (["resnet18=none.pt", "resnet34"], "none.pt"),
        (["resnet18", "resnet34", "--data", "none"], "none"),
        (["resnet18@1", "resnet34", "--data", "none"], "resnet18@1 is not trained here, so it has no seed"),
        (["resnet18", "resnet34", "--device", "cuda:7"], "no device 'cuda:7'"),
    ],
)
def test_wrong_names_and_places_are_one_line_and_write_nothing(run, place, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in one_line(err)
    assert not list(place.iterdir())


@pytest.mark.parametrize("wrong", ["tv:resnet18", "convnext_t", "resnet18=broken.pt"])
def test_a_network_that_cannot_be_is_refused_before_the_others_are_trained(run, place, monkeypatch, wrong):
    monkeypatch.setenv("VTK_CACHE", str(place / "cache"))
    (place / "broken.pt").write_bytes(b"no weights")
    code, _, err = run("resnet18", wrong, *FAST)
    assert code == 2
    assert wrong.partition("=")[2] in one_line(err)
    assert not list(place.rglob("digits-networks"))


def test_an_empty_folder_and_one_without_images_are_named(run, place):
    (place / "data" / "cat").mkdir(parents=True)
    (place / "data" / "cat" / "notes.txt").write_text("no image")
    code, _, err = run("resnet18", "resnet34", "--data", "data")
    assert code == 2
    assert "no images" in one_line(err)


def test_unreadable_images_are_named_skipped_and_counted_and_too_many_are_an_error(
    run, result, vit_files, digits_folder, tmp_path
):
    copy = tmp_path / "copy"
    for path in digits_folder.rglob("*.png"):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    files = sorted(copy.rglob("*.png"))
    files[3].write_bytes(files[3].read_bytes()[:100])
    code, out, err = run(vit_files[0], vit_files[1], "--data", copy, "--json")
    assert code == 0, err
    assert json.loads(out)["data"]["n"] == 119
    assert files[3].name in err
    for path in files[:30]:
        path.write_bytes(b"not an image")
    code, out, err = run(vit_files[0], vit_files[1], "--data", copy)
    assert code == 2
    assert files[0].name in one_line(err)


class Marker:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def test_a_pickle_offered_as_weights_is_refused_and_not_executed(run, place):
    bad, touched = place / "bad.pt", place / "touched"
    with bad.open("wb") as stream:
        pickle.dump({"state_dict": Marker(touched)}, stream)
    torch.save({"model": Marker(touched)}, place / "worse.pth")
    for file in (bad, place / "worse.pth"):
        code, _, err = run(f"resnet18={file}", "resnet34", *FAST)
        assert code == 2
        assert file.name in one_line(err)
    assert not touched.exists()


def test_a_truncated_weight_file_is_named(run, place, vit_files):
    content = vit_files[0].read_bytes()
    for cut in (0, 7, 100, len(content) // 2, len(content) - 1):
        (place / "cut.safetensors").write_bytes(content[:cut])
        code, _, err = run("vit_ti=cut.safetensors", vit_files[1])
        assert code == 2
        assert "cut.safetensors" in one_line(err)


def test_networks_that_classify_nothing_correctly_are_told_apart_from_a_bad_run(run, place, vit_files, digits_folder):
    shifted = {str(digit): (digit + 1) % 10 for digit in range(10)}
    (place / "map.json").write_text(json.dumps(shifted))
    arguments = [vit_files[0], vit_files[0], "--data", digits_folder, "--class-map", "map.json"]
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert re.search(
        r"classify nothing correctly, so no SAT can be computed|labels do not match its head", one_line(err)
    )
    assert "--class-map" in err


def test_a_full_disk_is_one_line_and_exit_code_1_and_earlier_results_are_intact(run, result, tiny_disk, monkeypatch):
    first = result(*PAIR)
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    code, out, err = run(
        "resnet18", "resnet34", *FAST, "--seed", "3", "--store", tiny_disk / "rows", "--cache-adv", "yes"
    )
    assert code == 1
    assert out == ""
    assert "no space left" in one_line(err)
    assert {path: path.read_bytes() for path in before} == before
    assert result(*PAIR) == first
