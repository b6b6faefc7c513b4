"""A training that is killed or told to stop ends bit for bit as one left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.detect.shape_folders import write_coco
from tests.stopped_runs import run_stopped

pytestmark = pytest.mark.slow  # trainings in processes of their own

PLAIN = ("--recipe", "digits", "--model", "vidt-plus-micro", "--size", "64", "--batch-size", "4", "--warmup-steps", "1")
MIXED = (
    *("--recipe", "modern", "--model", "vidt-plus-micro", "--masks", "on", "--size", "64", "--precision", "fp32"),
    *("--batch-size", "4", "--warmup-steps", "1", "--mosaic", "0.7", "--mixup", "0.6", "--plain-epochs", "0.5"),
    *("--epochs", "4", "--ema-decay", "0.9", "--dropout", "0.1", "--drop-path", "0.2"),
)
UPDATES = 8
STOPS: dict[str, dict[str, Any]] = {
    "killed in an epoch of mosaics": {"signal": "SIGKILL", "at": 3, "workers": 2},
    "told to stop in an epoch without": {"signal": "SIGTERM", "at": 5, "workers": 0},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("shapes"), {"train": 8, "val": 4})


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    """The run that was left alone, those that were stopped and went on, and every exit code."""
    root = tmp_path_factory.mktemp("runs")
    train = ["detect", "train", str(data), *MIXED, "--checkpoint-seconds", "0"]
    cases: list[dict[str, Any]] = [{"arguments": [*train, "--workers", "0", "--out", str(root / "alone")]}]
    for name, stop in STOPS.items():
        out = str(root / name.replace(" ", "-"))
        # The run goes on by its name, or by the same command: there with another number of workers.
        again = ["detect", "train", "--resume", out] if stop["workers"] else [*train, "--workers", "1", "--out", out]
        start = [*train, "--workers", str(stop["workers"]), "--out", out]
        cases += [{"arguments": start, **stop}, {"arguments": again}]
    codes = run_stopped("vtk_cli.detect", cases, folder=root, cache=root / "cache")
    assert codes[0] == 0
    return root, {name: codes[at : at + 2] for name, at in zip(STOPS, range(1, len(codes), 2), strict=True)}


@pytest.mark.parametrize("name", STOPS)
def test_a_stopped_training_goes_on_to_the_very_same_end(runs: tuple[Path, dict[str, list[int]]], name: str) -> None:
    root, codes = runs
    assert codes[name] == [{"SIGKILL": -9, "SIGTERM": 75}[STOPS[name]["signal"]], 0]
    alone, again = root / "alone", root / name.replace(" ", "-")
    for file in ("metrics.jsonl", "results.json", "per-class.csv"):
        assert (again / file).read_text() == (alone / file).read_text()
    for file in ("model.safetensors", "ema.safetensors", "best.safetensors"):
        one, other = load_file(alone / file), load_file(again / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), file


def test_the_drawn_things_do_matter(runs: tuple[Path, dict[str, list[int]]]) -> None:
    """The comparison above would be empty if nothing had been learnt from one epoch to the next."""
    root, _ = runs
    rows = [json.loads(line) for line in (root / "alone" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == UPDATES
    assert len({row["loss"] for row in rows}) == 4
    last, averaged = (load_file(root / "alone" / f"{name}.safetensors") for name in ("model", "ema"))
    assert not torch.equal(last["backbone.det_token"], averaged["backbone.det_token"])
