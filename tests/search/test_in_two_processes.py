"""`vtk search` by two processes that share each batch: the supernet and the network that one process trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.command_line import Said
from tests.search.command_line import Vtk
from tests.shared_runs import run_together
from vtk_cli.app import main

pytestmark = pytest.mark.slow  # trainings in processes of their own

TRAINED = ("--epochs", "2", "--device", "cpu", "--sync-bn", "--precision", "fp32")
CASES: dict[str, tuple[str, ...]] = {
    # 12 updates of 128 digits, moved and, of folders, cut and holed as one process would.
    "supernet": ("supernet", *TRAINED, "--sam", "0.05"),
    "supernet on images": (
        *(
            "supernet",
            "pictures",
            *TRAINED,
            "--epochs",
            "20",
            "--batch-size",
            "4",
            "--space",
            "chain-a",
            "--size",
            "16",
        ),
        *("--sampler", "fair", "--augmentation", "cifar-cutout", "--workers", "0"),
    ),
    "retrain": ("retrain", "3 2 3", "--space", "digits-mini", *TRAINED, "--ema-decay", "0.9"),
    "retrain with an edge that leads nowhere": (
        *("retrain", "3 0 0 2 0 0", "--space", "nasbench201", "--recipe", "digits", *TRAINED, "--batch-size", "256"),
        *("--width", "4", "--cells", "1", "--size", "16", "--nesterov"),
    ),
}
TOGETHER: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (name, ()) for name in CASES},
    **{f"{name}, in parts": (name, ("--parallel", "fsdp")) for name in CASES if name.startswith("retrain")},
}
"""What two processes run, beside which run of one."""
WEIGHTS = {"supernet": "supernet/final.safetensors", "retrain": "model.safetensors"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> tuple[Path, dict[str, list[Said]]]:
    """The runs of one process and of two, and what the two said."""
    root = tmp_path_factory.mktemp("runs")
    (root / "pictures").symlink_to(pictures)
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
    name = "retrain"
    one, two = (json.loads((root / f"{name}, {count}" / "summary.json").read_text()) for count in ("one", "two"))
    assert one["top1"] == two["top1"]
    assert two == said[name][0].object
    assert said[name][1].out == ""


def test_a_supernet_is_not_held_in_parts(vtk: Vtk) -> None:
    refused = vtk("supernet", "--nproc", "2", "--parallel", "fsdp", "--dry-run")
    assert refused.code == 2
    assert "leave the others alone" in refused.err


def test_a_plan_says_what_each_process_gets(vtk: Vtk) -> None:
    plan = vtk("supernet", "--nproc", "2", "--dry-run", "--json").object
    assert plan["processes"] == "2"
    assert plan["images_a_process"] == "64"
    alone = vtk("retrain", "3 2 3", "--space", "digits-mini", "--nproc", "5", "--dry-run")
    assert alone.code == 2
    assert "cannot be shared equally by 5 processes" in alone.err
