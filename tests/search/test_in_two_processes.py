"""`vtk search` by two processes that share each batch: the supernet and the network that one process trains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.command_line import Said
from tests.search.command_line import Vtk
from tests.shared_runs import run_together
from vtk_cli.app import main

pytestmark = pytest.mark.slow  # trainings in processes of their own

TRAINED = (
    *("images", "--device", "cpu", "--sync-bn", "--precision", "fp32", "--size", "16", "--workers", "0"),
    *("--batch-size", "16", "--lr", "0.005", "--min-lr", "0", "--schedule-on", "updates"),
)
CASES: dict[str, tuple[str, ...]] = {  # 20 updates each, of five paths 8
    "supernet, sharpness-aware": (
        *("supernet", *TRAINED, "--epochs", "10", "--space", "digits-mini", "--sam", "0.01"),
    ),
    "supernet, every choice": (
        *("supernet", *TRAINED, "--epochs", "10", "--space", "chain-a"),
        *("--sampler", "fair", "--augmentation", "cifar-cutout"),
    ),
    "supernet of blocks": (
        *("supernet", *TRAINED, "--epochs", "2", "--space", "nasbench201", "--width", "4", "--cells", "1"),
        *("--sampler", "fair", "--sam", "0.01", "--clip-value", "0.1"),
    ),
    "retrain": (
        *("retrain", "3 2 3", *TRAINED, "--epochs", "5", "--space", "digits-mini", "--ema-decay", "0.9"),
        *("--augmentation", "imagenet-lighting"),
    ),
    "retrain with an edge that leads nowhere": (
        *("retrain", "3 0 0 2 0 0", *TRAINED, "--epochs", "5", "--space", "nasbench201", "--recipe", "digits"),
        *("--width", "4", "--cells", "1", "--nesterov"),
    ),
}
TOGETHER: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (name, ()) for name in CASES if name != "supernet of blocks"},
    **{
        f"{name}, in parts": (name, ("--parallel", "fsdp"))
        for name in (
            "supernet, sharpness-aware",
            "supernet, every choice",
            "supernet of blocks",
            "retrain with an edge that leads nowhere",
        )
    },
}
"""What two processes run, beside which run of one."""
WEIGHTS = {"supernet": "supernet/final.safetensors", "retrain": "model.safetensors"}


def draw_images(folder: Path, count: int) -> None:
    """So many images of each of two classes: darker and lighter noise."""
    generator = np.random.default_rng(count)
    for label, name in enumerate(("ant", "bee")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.normal(100 + 50 * label, 40, (20, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Said]]]:
    """The runs of one process and of two, and what the two said."""
    root = tmp_path_factory.mktemp("runs")
    draw_images(root / "images" / "train", 32)
    draw_images(root / "images" / "val", 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("VTK_CACHE", str(root / "cache"))
        for name, command in CASES.items():
            assert main(["search", *command, "-q", "--json", "--out", f"{name}, one"]) == 0
    together = [
        ["search", *CASES[alone], *further, "--json", "--out", f"{name}, two"]
        for name, (alone, further) in TOGETHER.items()
    ]
    said = run_together(together, folder=root, cache=root / "cache", preload="vtk_cli.search.job")
    return root, dict(zip(TOGETHER, said, strict=True))


@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_come_to_the_weights_of_one(runs: tuple[Path, dict[str, list[Said]]], name: str) -> None:
    root, said = runs
    assert [one.code for one in said[name]] == [0, 0], said[name]
    file = WEIGHTS[name.partition(" ")[0].rstrip(",")]
    one, two = load_file(root / f"{TOGETHER[name][0]}, one" / file), load_file(root / f"{name}, two" / file)
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-6, rtol=1e-5, msg=key)


def test_two_processes_measure_every_image_once(runs: tuple[Path, dict[str, list[Said]]]) -> None:
    root, said = runs
    name = "retrain"  # on 14 images, 8 at a time
    one, two = (json.loads((root / f"{name}, {count}" / "summary.json").read_text()) for count in ("one", "two"))
    assert one["top1"] == two["top1"]
    assert two == said[name][0].object
    assert said[name][1].out == ""


def test_a_plan_says_what_each_process_gets(vtk: Vtk) -> None:
    plan = vtk("supernet", "--nproc", "2", "--batch-size", "64", "--dry-run", "--json").object
    assert plan["processes"] == "2"
    assert plan["images_a_process"] == "32"
    parts = vtk("supernet", "--nproc", "2", "--batch-size", "64", "--parallel", "fsdp", "--dry-run", "--json").object
    assert parts["each_holds"] == "1/2 of weights, gradients and optimiser state"
    alone = vtk("retrain", "3 2 3", "--space", "digits-mini", "--nproc", "7", "--dry-run")
    assert alone.code == 2
    assert "cannot be shared equally by 7 processes" in alone.err
