"""`vtk adapt` by two processes that share the batches: what one process comes to and asks, they come to and ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.adapt.conftest import CLASSES, TINY
from tests.adapt.drawn_domains import class_tree
from tests.command_line import Said
from tests.shared_runs import run_together
from vtk_cli.app import main

pytestmark = pytest.mark.slow  # trainings in processes of their own

# Slowly, and with questions of 5 images: normalised over 3, a network makes of rounding errors what it likes.
ROUNDS = (
    *(*TINY, "--source-epochs", "5", "--holdout", "0.3", "--stage1-steps", "6", "--stage2-steps", "9", "--sync-bn"),
    *("--budget", "10", "--lr", "2e-4", "--predictor-lr", "2e-4", "--discriminator-lr", "2e-4", "--joint-lr", "2e-5"),
)
CASES: dict[str, tuple[str, ...]] = {
    # 13 images of the source, 21 of the target: batches of 8 that leave rests of 5; 5 images are 3 and 2.
    "sequential": (*ROUNDS, "--query", "loss", "--pl-keep", "0.7"),
    "with a discriminator": (*ROUNDS, "--recipe", "tl-ada", "--query", "badge", "--rank-loss", "bce"),
    "joint": (*ROUNDS, "--recipe", "joint", "--joint-steps", "9", "--query", "coreset"),
    "confused classes, labels a prior": (*ROUNDS, "--uda", "mcc", "--im-prior", "L", "--query", "clue"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Said]]]:
    """The runs of one process and of two, and what the two said."""
    root = tmp_path_factory.mktemp("runs")
    class_tree(root / "source", CLASSES, 6)
    class_tree(root / "target", CLASSES, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("VTK_CACHE", str(root / "cache"))
        for name, command in CASES.items():
            assert main(["adapt", "run", *command, "-q", "--json", "--out", f"{name}, one"]) == 0
    together = [["adapt", "run", *command, "--json", "--out", f"{name}, two"] for name, command in CASES.items()]
    said = run_together(together, folder=root, cache=root / "cache", preload="vtk_cli.adapt.job")
    return root, dict(zip(CASES, said, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_ask_what_one_asks_and_come_to_its_weights(
    runs: tuple[Path, dict[str, list[Said]]], name: str
) -> None:
    root, said = runs
    assert [one.code for one in said[name]] == [0, 0], said[name]
    one, two = (json.loads((root / f"{name}, {count}" / "state.json").read_text()) for count in ("one", "two"))
    assert one == two
    assert sum(len(record["asked"]) for record in one["history"]) == one["budget"]["total"]
    for file in ("ckpt/source.pt", "ckpt/round_00.pt", "ckpt/round_02.pt"):
        first, second = (torch.load(root / f"{name}, {count}" / file, weights_only=True) for count in ("one", "two"))
        for key, value in first["parts"].items():
            tolerance = 1e-5 if "running" in key else 1e-6
            torch.testing.assert_close(second["parts"][key], value, atol=tolerance, rtol=1e-5, msg=f"{file}: {key}")
