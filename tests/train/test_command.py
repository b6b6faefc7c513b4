"""`vtk train` and its verbs as a user runs them: what is said, what is written, and every wrong input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.conftest import Vtk, tree, write_images
from vtk_cli.train.recipes import RECIPES

TINY = ("--model", "test_vit", "--img-size", "32", "--epochs", "1", "--batch-size", "4", "--workers", "0")
HEAVY = ("torch", "timm", "torchvision", "matplotlib", "sklearn", "scipy", "numpy")


def pictures(root: Path, **changes: object) -> Path:
    return write_images(root / "data", **{"splits": ("train", "val"), **changes})  # type: ignore[arg-type]


# What is said


@pytest.mark.parametrize("arguments", [["train", "--help"], ["train", "eval", "--help"], ["train", "recipes"]])
def test_help_and_recipes_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; from vtk_cli.app import main; main({arguments}); print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_step_of_augmask_on_a_vit_is_said_to_cost_half_as_much_again(vtk: Vtk) -> None:
    said = vtk("--images-per-class", 1, "--epochs", 1)
    assert said.code == 0
    assert "in its sub-branch: a step costs 1.51x a plain one" in said.err
    plan = vtk("--dry-run", "--json").object
    assert plan["step_factor"] == pytest.approx(1 + plan["sub_macs"] / plan["macs"], abs=1e-4)
    assert 1.45 < plan["step_factor"] < 1.6


def test_without_a_sub_branch_no_cost_of_one_is_said(vtk: Vtk) -> None:
    plan = vtk("--dry-run", "--json", "--sub", "none").object
    assert (plan["sub"], plan["sub_macs"], plan["step_factor"]) == (None, None, 1.0)


def test_a_plan_says_what_each_of_several_processes_gets_and_holds(vtk: Vtk, shared_pictures: Path) -> None:
    plan = vtk(shared_pictures, *TINY, "--dry-run", "--json", "--nproc", 2, "--parallel", "fsdp").object
    assert (plan["processes"], plan["images_a_process"]) == (2, 2)
    assert plan["each_holds"].startswith("1/2 of weights")
    alone = vtk(shared_pictures, *TINY, "--dry-run", "--json").object
    assert (alone["processes"], alone["images_a_process"], "each_holds" in alone) == (1, 4, False)
    said = vtk(shared_pictures, *TINY, "--dry-run", "--nproc", 3)
    assert "a batch of 4 cannot be shared equally by 3 processes" in said.complaint


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(vtk: Vtk, tmp_path: Path, shared_pictures: Path) -> None:
    said = vtk(shared_pictures, *TINY, "--accumulate", 2, "--dry-run", "--out", "here")
    assert said.code == 0
    for words in ("training images", "validation images", "would be written to", "here", "mask: token"):
        assert words in said.out
    plan = vtk(shared_pictures, *TINY, "--accumulate", 2, "--dry-run", "--json").object
    assert (plan["images"], plan["val_images"], plan["classes"], plan["updates"]) == (12, 12, 2, 2)
    assert plan["out"] is None
    assert not tree(tmp_path)


def test_json_is_one_object_that_is_the_summary_of_the_run(vtk: Vtk, tmp_path: Path, shared_pictures: Path) -> None:
    found = vtk(shared_pictures, *TINY, "--out", "run", "--ema-decay", 0.5, "--json").object
    assert found == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {"top1", "nll", "ema_top1", "best", "images_per_second", "macs", "sub_macs"} <= found.keys()
    assert found["data"] == str(shared_pictures)
    for file in (found["weights"], found["report"], found["best"]["weights"]):
        assert Path(file).is_file()
    for name in ("config.toml", "run.json", "log.txt", "metrics.jsonl", "plots/training.png", "ema.safetensors"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_the_first_run_takes_no_options_but_a_short_one_and_ends_in_a_page(vtk: Vtk, tmp_path: Path) -> None:
    said = vtk("--images-per-class", 1, "--epochs", 1)
    folder = next((tmp_path / "runs" / "train").iterdir())
    assert folder.name.endswith("digits-vit_tiny_patch16_224")
    assert f"Look at {Path('runs/train') / folder.name / 'report.html'}" in said.out
    assert vtk("eval").code == 0, "the newest run is the default"


def test_all_recipes_are_listed_and_each_is_shown(vtk: Vtk) -> None:
    assert [each["name"] for each in vtk("recipes", "--json").object["recipes"]] == list(RECIPES)
    shown = vtk("recipes", "deit3-b-400")
    assert "DeiT-III, arXiv 2204.07118" in shown.out
    assert "deit3-b-400" in vtk("recipes", "deit3-b-40").complaint


# Wrong input


def _corrupt(root: Path) -> Path:
    data = pictures(root, count=3)
    for name in ("broken.jpg", "broken-too.png"):
        (data / "train" / "ant" / name).write_bytes(b"\xff\xd8\xff\xe0 no image")
    return data


def _rename(source: str, target: str) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        data = pictures(root, count=2)
        shutil.move(data / source, data / target)
        return data

    return change


def _emptied(folder: str) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        data = pictures(root, count=2, classes=("ant", "bee", "cow"))
        for path in (data / folder).iterdir():
            path.unlink()
        return data

    return change


BAD_DATA: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda root: root / "nowhere", "no such folder, file or dataset"),
    "one-class": (lambda root: pictures(root, classes=("ant",)), "there is one class only (ant)"),
    "other-classes": (_rename("val/bee", "val/bees"), "1 only in {data}/train (bee); 1 only in {data}/val (bees)"),
    "class-missing-in-val": (_rename("val/bee", "bee"), "1 only in {data}/train (bee); give both the same"),
    "empty-class": (_emptied("train/cow"), "1 class folders have no images: cow"),
    "empty-class-in-val": (_emptied("val/cow"), "{data}/val: 1 class folders have no images: cow"),
    "no-class-folders": (lambda root: pictures(root) / "train" / "ant", "no class folders, so no labels"),
    "a-file": (lambda root: pictures(root) / "train" / "ant" / "ant0.png", "is a file"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_folders_that_are_no_classes_are_refused_in_one_line(vtk: Vtk, tmp_path: Path, case: str) -> None:
    make, words = BAD_DATA[case]
    data = make(tmp_path)
    before = tree(tmp_path)
    said = vtk(data, *TINY)
    assert said.code == 2
    assert words.format(data=tmp_path / "data") in said.complaint
    assert tree(tmp_path) == before


def test_too_many_broken_images_end_a_run_which_goes_on_once_they_are_gone(vtk: Vtk, tmp_path: Path) -> None:
    data = _corrupt(tmp_path)
    said = vtk(data, *TINY, "--out", "run")
    assert said.code == 2
    assert "2 of 8 images cannot be read" in said.complaint
    assert "broken.jpg" in said.complaint
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    for broken in (data / "train" / "ant").glob("broken*"):
        broken.unlink()
    assert vtk("--resume", "run", "--json").object["images"] == 6


def test_a_few_broken_images_are_replaced_named_and_counted(vtk: Vtk, tmp_path: Path) -> None:
    data = pictures(tmp_path, count=15)
    (data / "train" / "bee" / "broken.png").write_bytes(b"no image")
    said = vtk(data, *TINY, "--out", "run", "--batch-size", 31)
    assert said.code == 0, said.err
    assert "broken.png" in said.err
    assert "1 training images could not be read" in (tmp_path / "run" / "report.html").read_text()


def test_images_of_every_kind_are_read(vtk: Vtk, tmp_path: Path) -> None:
    data = pictures(tmp_path, count=2)
    kinds = {
        "16-bit.png": Image.fromarray((np.arange(576).reshape(24, 24) * 100).astype(np.uint16)),
        "cmyk.jpg": Image.new("CMYK", (24, 24)),
        "palette.png": Image.new("P", (24, 24)),
        "alpha.png": Image.new("RGBA", (24, 24), (1, 2, 3, 4)),
        "grey-alpha.png": Image.new("LA", (24, 24)),
        "one-bit.png": Image.new("1", (24, 24)),
        "one-pixel.png": Image.new("RGB", (1, 1), (5, 6, 7)),
    }
    for split in ("train", "val"):
        for name, image in kinds.items():
            image.save(data / split / "ant" / name)
    said = vtk(data, *TINY, "--json")
    assert said.object["images"] == 4 + len(kinds)
    assert "warning" not in said.err


BAD_OPTIONS = {
    "--recipe deit3-b-40": "no such recipe; did you mean deit3-b-400",
    "--model test_vitt": "unknown network 'test_vitt'; did you mean test_vit",
    "--optimizer adamwww": "timm has no optimiser 'adamwww'; did you mean adamw",
    "--schedule cosin": "no schedule 'cosin'; did you mean cosine",
    "--sub-ratio 1": "sub-ratio must be >= 0 and < 1",
    "--sub-ratio -0.1": "sub-ratio must be >= 0 and < 1",
    "--sub-ratio half": "'half' is no ratio",
    "--sub dropout --model test_resnet": "has no dropout in its blocks; use --sub mask",
    "--sub-mask-kind token --model test_resnet": "tokens cannot be taken out of a ResNet",
    "--sub-block 7 --model test_resnet": "cannot be cut into blocks of 7",
    "--binarize": "only the BCE loss takes binarised targets; give --loss bce",
    "--binarize --loss bce --smoothing 0.1": "turn every class on",
    "--crop-scale-min 0.9 --crop-scale-max 0.2": "the smallest crop is larger than the largest",
    "--warmup 5": "5 epochs of warm-up and 0 of cool-down leave nothing of 1",
    "--warmup soon": "'soon' is no length",
    "--warmup 100%": "'100%' is no length",
    "--betas 0.9": "give two: --betas 0.9 --betas 0.95",
    "--betas 2 --betas 3": "adamw cannot be made",
    "--ab-check": "--ab-check: there are no byproducts",
    "--ab-sub label": "--ab-sub: there are no byproducts",
    "--ab-scale x": "'x' is no factor",
    "--byproducts nothing.csv": "--byproducts nothing.csv: no such file or folder",
    "--eval-set v2": "'v2' is no NAME=PATH",
    "--eval-set v2=nowhere": "--eval-set v2=nowhere: no such folder or file",
    "--weights nothing.pt": "nothing.pt: no such weight file",
    "--model-arg depth": "'depth' is no KEY=VALUE",
    "--model-arg bogus=3": "test_vit: cannot be built with {'bogus': 3}",
    "--img-size 33": "--img-size: a VisionTransformer does not take images of 33 x 33 pixels",
    "--eval-size 40": "--eval-size: a VisionTransformer does not take images of 40 x 40 pixels",
    "--model test_resnet --batch-size 1": "--batch-size: batch normalisation cannot train on one image at a time",
    "--auto-augment bogus": "no augmentation policy 'bogus'",
    "--precision fp16": "--precision: fp16 does not train on the CPU",
    "--device tpu": "'tpu' is no device",
    "--lr nan": "--lr: nan is out of range",
    "--lr inf": "--lr: inf is out of range",
    "--head-init-std 0.1 --model tv:resnet18 --img-size 64": "--head-init-std: a ResNet has no one classifier",
    "--grad-checkpointing --model tv:resnet18 --img-size 64": "--grad-checkpointing: a ResNet cannot",
    "--sub-bn main --grad-checkpointing --model test_resnet": "cannot go with gradient checkpointing",
    "--resume nowhere": "--resume nowhere: holds no run",
    "--val nowhere": "nowhere: no such folder or file",
}


@pytest.mark.parametrize("flags", BAD_OPTIONS)
def test_options_that_cannot_be_are_refused_in_one_line(
    vtk: Vtk, tmp_path: Path, shared_pictures: Path, flags: str
) -> None:
    said = vtk(shared_pictures, *TINY, *flags.split())
    assert said.code == 2
    assert BAD_OPTIONS[flags] in said.complaint
    assert not tree(tmp_path)


def test_options_that_a_loss_diverges_with_fail_and_say_so(vtk: Vtk, shared_pictures: Path) -> None:
    said = vtk(shared_pictures, *TINY, "--lr", "1e30")
    assert said.code == 1
    assert "the loss of main branch and sub-branch is nan at step" in said.failure


@pytest.mark.parametrize(
    ("lines", "flags", "words"),
    [
        (["x/none.png,0.1,0.1"], "", "none is the same image"),
        ([], "", "none is the same image"),
        (["ant/ant0.png,12,20"], "", "this looks like pixels; use --ab-units px"),
        (["ant/ant0.png,zero,1"], "", "clicks.csv:2: the point (zero, 1) is not two finite numbers"),
        (["ant/ant0.png,nan,1"], "", "not two finite numbers"),
        (["ant/ant0.png,0.5,0.5"], "--ab-from boxes", "there are no boxes in these csv byproducts"),
        (["ant/ant0.png,0.5,0.5"], "--ab-drop-outside", "--ab-drop-outside: each image has its one class"),
        (["ant/ant0.png,0.5,0.5"], "--ab-check --dry-run", "--ab-check --dry-run: a look at the byproducts"),
        (["ant/ant0.png,0.5,0.5"], "--sub none --ab-sub label", "--ab-sub: there is no sub-branch"),
    ],
)
def test_clicks_that_cannot_be_are_refused_in_one_line(
    vtk: Vtk, tmp_path: Path, shared_pictures: Path, lines: list[str], flags: str, words: str
) -> None:
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("\n".join(["file,x,y", *lines]) + "\n")
    said = vtk(shared_pictures, *TINY, "--byproducts", clicks, *flags.split())
    assert said.code == 2
    assert words in said.complaint
    assert tree(tmp_path) == {clicks}


def test_unknown_repeated_and_slightly_misplaced_clicks_are_counted(
    vtk: Vtk, tmp_path: Path, shared_pictures: Path
) -> None:
    lines = ["ant/ant0.png,0.5,0.5", "ant/ant0.png,0.5,0.5", "bee/bee1.png,1.01,0.5", "cow/cow.png,0.1,0.1"]
    (tmp_path / "clicks.csv").write_text("\n".join(["file,x,y", *lines]) + "\n")
    said = vtk(shared_pictures, *TINY, "--byproducts", "clicks.csv", "--dry-run", "--json")
    assert said.object["images_with_points"] == 2
    for words in ("1 repeated row", "1 of 3 images of the byproducts are not in the data", "moved to its edge"):
        assert words in said.err


def test_weights_of_other_classes_say_what_is_started_anew(vtk: Vtk, tmp_path: Path, shared_pictures: Path) -> None:
    assert vtk(shared_pictures, *TINY, "--out", "first").code == 0
    other = write_images(tmp_path / "three", classes=("a", "b", "c"), count=2, splits=("train",))
    said = vtk(other, *TINY, "--weights", "first", "--dry-run")
    assert said.code == 0
    assert "2 classes there, 3 here; reinitialised: head.weight, head.bias" in said.err


def test_a_folder_of_another_run_or_of_something_else_is_not_written_to(
    vtk: Vtk, tmp_path: Path, shared_pictures: Path
) -> None:
    assert vtk(shared_pictures, *TINY, "--out", "run").code == 0
    assert "other options (lr: 0.002 -> 0.1)" in vtk(shared_pictures, *TINY, "--out", "run", "--lr", 0.1).complaint
    assert "other options (epochs: 1 -> 3)" in vtk("--resume", "run", "--epochs", 3).complaint
    own = tmp_path / "own"
    own.mkdir()
    (own / "thesis.tex").write_text("...")
    assert "holds no run of vtk (it holds thesis.tex)" in vtk(shared_pictures, *TINY, "--out", own).complaint
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace('"train"', '"prune"'))
    assert "is the config of `vtk prune`" in vtk("--resume", "run").complaint
    config.write_text("no TOML [")
    assert "is not TOML" in vtk("--resume", "run").complaint


def test_a_folder_that_may_not_be_written_is_refused(vtk: Vtk, read_only_folder: Path, shared_pictures: Path) -> None:
    for out in (read_only_folder, read_only_folder / "run"):
        said = vtk(shared_pictures, *TINY, "--out", out)
        assert said.code == 2
        assert str(read_only_folder) in said.complaint


def test_a_finished_run_goes_on_to_the_same_result_and_takes_other_sets(
    vtk: Vtk, tmp_path: Path, shared_pictures: Path
) -> None:
    """Also with what the recipe leaves empty: every option that is written down can be read again."""
    first = vtk(shared_pictures, *TINY, "--out", "run", "--json").object
    again = vtk("--resume", "run", "--eval-set", f"same={shared_pictures / 'val'}", "--json").object
    assert {name: again[name] for name in ("top1", "nll", "best")} == {
        name: first[name] for name in ("top1", "nll", "best")
    }
    assert again["sets"]["same"] == {"measure": "top-1", "value": first["top1"], "images": 12}
    repeated = vtk("--config", "run/config.toml", "--out", "repeated", "--json").object
    assert repeated["nll"] == first["nll"]


# The verbs on what is not there


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("eval", "there is no finished run in runs/train"),
        ("export", "there is no finished run in runs/train"),
        ("predict .", "there is no finished run in runs/train"),
        ("eval empty", "empty: holds no run"),
        ("export empty", "empty: holds no run"),
        ("predict . --model empty", "empty: holds no run"),
        ("eval empty/run", "empty/run: no such run folder or weight file"),
        ("eval resnet51", "unknown network 'resnet51'; did you mean"),
        ("eval run --which ema", "the run kept no averaged weights"),
        ("eval run three", "its 3 classes are not the 2 of the network (unknown: cow)"),
        ("eval run --eval-set x=empty", "--eval-set x=empty: no images in empty"),
        ("eval run/model.safetensors", "these weights are of no run, whose images could be used; name DATA too"),
        ("eval unfinished", "the run is not finished and has no model.safetensors yet; go on with it"),
        ("eval damaged", "damaged/model.safetensors: is not a whole safetensors file"),
        ("predict --model run", "name images or folders of images"),
        ("predict nothing.png --model run", "nothing.png: no such image or folder"),
    ],
)
def test_verbs_on_what_is_not_there_are_refused_in_one_line(
    vtk: Vtk, tmp_path: Path, finished: Path, arguments: str, words: str
) -> None:
    for name in ("run", "unfinished", "damaged"):
        shutil.copytree(finished, tmp_path / name)
    (tmp_path / "unfinished" / "model.safetensors").unlink()
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"short")
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "three", classes=("ant", "bee", "cow"), count=1, splits=("val",))
    shutil.move(tmp_path / "three" / "val", tmp_path / "three-val")
    shutil.rmtree(tmp_path / "three")
    shutil.move(tmp_path / "three-val", tmp_path / "three")
    before = tree(tmp_path)
    said = vtk(*arguments.split())
    assert said.code == 2
    assert words in said.complaint
    assert tree(tmp_path) == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shared_pictures: Path) -> Path:
    """A run that is done; to be copied."""
    from vtk_cli.app import main

    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", str(shared_pictures), *TINY, "--out", str(out), "--quiet"]) == 0
    return out
