"""`vtk train` by two processes that share each batch: what one process comes to, they come to together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
SGD = ("--optimizer", "sgd", "--lr", "0.05", "--warmup", "0", "--batch-size", "8", "--epochs", "4", "--workers", "0")
KEPT = ("--evaluate-epochs", "4", "--ema-decay", "0.9", "--clip-norm", "1", "--device", "cpu", "--precision", "fp32")
DIGITS = ("train", "--images-per-class", "4", *SGD, *KEPT)
MIX = ("--mixup", "0.4", "--cutmix", "1", "--erasing", "0.3")
POINTED = ("--byproducts", "clicks.csv", "--mixup", "0.4", "--cutmix", "1", "--hflip", "0.5", "--drop-path", "0")
CASES: dict[str, tuple[str, ...]] = {
    "tokens left out, mixed": (*DIGITS, *MIX, "--accumulate", "2"),
    "each its own mixture, the net of both branches in one pass": (*DIGITS, *MIX, "--mix-mode", "elem", "--sub-fused"),
    "normalised over both": (*DIGITS, *MIX, "--model", "test_resnet", "--sync-bn", "--sub-bn", "main"),
    "a learned token, clicks": (
        *("train", "data", *SGD, *KEPT, *POINTED, "--model", "swin_tiny_patch4_window7_224", "--ab-sub", "relaxed"),
        *("--img-size", "32", "--model-arg", "embed_dim=24"),
    ),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Said]]]:
    """The runs of one process and of two, and what the two said."""
    root = tmp_path_factory.mktemp("runs")
    write_images(root / "data", count=20, splits=("train",))
    write_images(root / "data", count=7, splits=("val",))
    clicks = [f"{name}/{name}{at}.png,{0.1 + at / 30},{0.9 - at / 40}" for name in ("ant", "bee") for at in range(13)]
    (root / "clicks.csv").write_text("\n".join(["file,x,y", *clicks]) + "\n")
    together = [[*command, "--out", f"{name}, two"] for name, command in CASES.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("VTK_CACHE", str(root / "cache"))
        for name, command in CASES.items():
            assert main([*command, "--quiet", "--out", f"{name}, one"]) == 0
    said = run_together(together, folder=root, cache=root / "cache", preload="vtk_cli.train.job")
    return root, dict(zip(CASES, said, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_come_to_the_weights_of_one(runs: tuple[Path, dict[str, list[Said]]], name: str) -> None:
    root, said = runs
    assert [one.code for one in said[name]] == [0, 0], said[name]
    for file in ("model.safetensors", "ema.safetensors"):
        one, two = (load_file(root / f"{name}, {count}" / file) for count in ("one", "two"))
        assert one.keys() == two.keys()
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, atol=1e-6, rtol=0, msg=lambda text, key=key: f"{key}: {text}")
