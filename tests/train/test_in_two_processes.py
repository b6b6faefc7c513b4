"""`vtk train` by two processes that share each batch: what one process comes to, they come to together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.command_line import Said
from tests.shared_runs import run_together
from tests.train.conftest import write_images
from vtk_cli.app import main

pytestmark = pytest.mark.slow  # trainings in processes of their own

# 40 images, 8 an update: 20 updates. Of SGD: Adam would make rounding errors of gradients that are zero (those of the
# keys' biases) into steps.
SGD = (
    "--optimizer",
    "sgd",
    "--warmup",
    "0",
    "--batch-size",
    "8",
    "--epochs",
    "4",
    "--workers",
    "0",
    "--clip-norm",
    "1",
)
KEPT = ("--evaluate-epochs", "4", "--ema-decay", "0.9", "--device", "cpu", "--precision", "fp32", "--quiet")
MIX = ("--mixup", "0.4", "--cutmix", "1", "--erasing", "0.3")
DIGITS = ("train", "--images-per-class", "4", *SGD, *KEPT, *MIX)
CLICKS = (
    "train",
    "data",
    "--byproducts",
    "clicks.csv",
    *SGD,
    *KEPT,
    "--lr",
    "0.05",
    "--hflip",
    "0.5",
    "--drop-path",
    "0",
)
# The variance of features of masked images is often next to nothing: divided by its root, rounding errors would grow.
NORMALISED = ("--model", "test_efficientnet", "--model-arg", "bn_eps=0.1", "--sync-bn", "--sub-bn", "main")
SWIN = ("--model", "swin_tiny_patch4_window7_224", "--img-size", "32", "--model-arg", "embed_dim=24")
CASES: dict[str, tuple[str, ...]] = {
    "tokens left out": (*DIGITS, "--lr", "0.05", "--accumulate", "2"),
    "a coefficient each": (*DIGITS, "--lr", "0.05", "--mix-mode", "elem", "--sub-fused"),
    "normalised": (*DIGITS, "--lr", "0.01", *NORMALISED),
    "clicks": (*CLICKS, *MIX, *SWIN, "--ab-sub", "relaxed"),
    "clicks alone": (*CLICKS, "--model", "test_vit", "--img-size", "32", "--sub", "none"),
}
SHARED = ["tokens left out", "normalised", "clicks"]
"""Of each of these processes hold a part."""
FOUND = [*((name, "ddp") for name in CASES), *((name, "fsdp") for name in SHARED)]
LOOKED_AT = (
    "train",
    "eval",
    "clicks, one",
    "data",
    "--eval-set",
    "again=data/val",
    "--device",
    "cpu",
    "--batch-size",
    "2",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Said]]]:
    """The runs of one process and of two, and what the two said, last of an evaluation."""
    root = tmp_path_factory.mktemp("runs")
    write_images(root / "data", count=20, splits=("train",))
    write_images(root / "data", count=4, splits=("val",))
    (root / "data" / "val" / "bee" / "bee3.png").unlink()  # seven are left
    clicks = [f"{name}/{name}{at}.png,{0.1 + at / 30},{0.9 - at / 40}" for name in ("ant", "bee") for at in range(13)]
    (root / "clicks.csv").write_text("\n".join(["file,x,y", *clicks]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("VTK_CACHE", str(root / "cache"))
        for name, command in CASES.items():
            assert main([*command, "--out", f"{name}, one"]) == 0
        assert main([*LOOKED_AT, "--out", "looked at, one"]) == 0
    commands = {
        f"{name}, {held}": [*CASES[name], "--parallel", held, "--out", f"{name}, {held}"] for name, held in FOUND
    }
    commands["looked at"] = [*LOOKED_AT, "--json", "--out", "looked at, two"]
    said = run_together(list(commands.values()), folder=root, cache=root / "cache", preload="vtk_cli.train.job")
    return root, dict(zip(commands, said, strict=True))


@pytest.mark.parametrize(("name", "held"), FOUND)
def test_two_processes_come_to_the_weights_of_one(
    runs: tuple[Path, dict[str, list[Said]]], name: str, held: str
) -> None:
    root, said = runs
    found = f"{name}, {held}"
    assert [one.code for one in said[found]] == [0, 0], said[found]
    for file in ("model.safetensors", "ema.safetensors"):
        alone, together = load_file(root / f"{name}, one" / file), load_file(root / found / file)
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)
    one, two = (json.loads((root / run / "summary.json").read_text()) for run in (f"{name}, one", found))
    assert (one["updates"], one["processes"]) == (12 if "--accumulate" in CASES[name] else 20, 1)
    assert (two["updates"], two["processes"]) == (one["updates"], 2)
    for measure in ("top1", "nll", "ema_top1", "ema_nll"):
        assert two[measure] == pytest.approx(one[measure], abs=1e-5)
    if "gradient_norms" in one:
        assert two["gradient_norms"] == pytest.approx(one["gradient_norms"], rel=1.0)


def test_two_processes_measure_each_image_once_and_say_what_one_says(runs: tuple[Path, dict[str, list[Said]]]) -> None:
    root, said = runs
    first, second = said["looked at"]
    assert (second.code, second.out) == (0, "")
    one, two = (json.loads((root / f"looked at, {count}" / "evaluation.json").read_text()) for count in ("one", "two"))
    assert first.object["images"] == one["images"] == two["images"] == 7
    assert two.keys() == one.keys()
    for measure in ("top1", "nll", "ece"):
        assert two[measure] == pytest.approx(one[measure], abs=1e-6)
    assert two["sets"] == one["sets"]
    columns = [(root / f"looked at, {count}" / "per-class.csv").read_text() for count in ("one", "two")]
    assert columns[0] == columns[1]
