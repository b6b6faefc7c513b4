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

SHARED = (
    *(*TINY, "--source-epochs", "5", "--source-lr", "0.01", "--holdout", "0.3", "--sync-bn", "--budget", "10"),
    *("--stage1-steps", "6", "--stage2-steps", "9", "--lr", "2e-4", "--predictor-lr", "2e-4"),
)
# Of a few images, rounding decides which cell of a map is the largest: a network without such choices for the others.
SMOOTH = (*SHARED, "--net", "test_vit", "--weights", "scratch", "--size", "32")
CASES: dict[str, tuple[str, ...]] = {
    # 13 images of the source, 21 of the target: batches of 8 that leave rests of 5; 5 images are 3 and 2.
    "joint": (*SHARED, "--recipe", "joint", "--joint-steps", "9", "--joint-lr", "2e-5", "--query", "coreset"),
    "sequential": (*SMOOTH, "--query", "loss", "--pl-keep", "0.7", "--im-prior", "L"),
    "with a discriminator, confused classes": (
        *(*SMOOTH, "--recipe", "tl-ada", "--discriminator-lr", "2e-4", "--uda", "mcc"),
        *("--query", "badge", "--rank-loss", "bce"),
    ),
}
TOGETHER: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (name, ()) for name in CASES},
    "sequential, in parts": ("sequential", ("--parallel", "fsdp")),
}
"""What two processes run, beside which run of one."""


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
    together = [
        ["adapt", "run", *CASES[alone], *further, "--json", "--out", f"{name}, two"]
        for name, (alone, further) in TOGETHER.items()
    ]
    said = run_together(together, folder=root, cache=root / "cache", preload="vtk_cli.adapt.job")
    return root, dict(zip(TOGETHER, said, strict=True))


@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_ask_what_one_asks_and_come_to_its_weights(
    runs: tuple[Path, dict[str, list[Said]]], name: str
) -> None:
    root, said = runs
    assert [one.code for one in said[name]] == [0, 0], said[name]
    folders = (root / f"{TOGETHER[name][0]}, one", root / f"{name}, two")
    one, two = (json.loads((folder / "state.json").read_text()) for folder in folders)
    assert one == two
    assert sum(len(record["asked"]) for record in one["history"]) == one["budget"]["total"]
    for file in ("ckpt/source.pt", "ckpt/round_00.pt", "ckpt/round_02.pt"):
        first, second = (torch.load(folder / file, weights_only=True) for folder in folders)
        for key, value in first["parts"].items():
            absolute, relative = (1e-5, 5e-5) if "running" in key else (1e-6, 5e-6)
            torch.testing.assert_close(
                second["parts"][key], value, atol=absolute, rtol=relative, msg=lambda m, k=key, f=file: f"{f} {k}: {m}"
            )


def test_the_first_process_alone_speaks_and_writes(runs: tuple[Path, dict[str, list[Said]]]) -> None:
    root, said = runs
    first, second = said["sequential"]
    assert first.object["budget"]["used"] == 10
    assert (second.out, second.err) == ("", "")
    rows = [(root / f"sequential, {count}" / "metrics.csv").read_text().splitlines() for count in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 4
    ledgers = [(root / f"sequential, {count}" / "labels.csv").read_text().splitlines() for count in ("one", "two")]
    assert [line.rpartition(",")[0] for line in ledgers[0]] == [line.rpartition(",")[0] for line in ledgers[1]]
