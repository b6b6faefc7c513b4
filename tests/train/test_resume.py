"""A training that is killed or told to stop, and started again, ends bit for bit as one that was left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.stopped_runs import run_stopped

pytestmark = pytest.mark.slow  # some trainings in processes of their own

UPDATES = 12
RUN = (
    *("--images-per-class", "4", "--batch-size", "10", "--epochs", "3", "--checkpoint-seconds", "0"),
    *(
        "--mixup",
        "0.4",
        "--cutmix",
        "1",
        "--erasing",
        "0.3",
        "--ema-decay",
        "0.9",
        "--drop",
        "0.1",
        "--drop-path",
        "0.1",
    ),
)
STOPS: dict[str, dict[str, Any]] = {
    f"{signal} in update {at} with {workers} workers": {"signal": signal, "at": at, "workers": workers}
    for signal, at, workers in (
        ("SIGKILL", 0, 0),  # before there is anything to go on from
        ("SIGKILL", 6, 2),  # in the middle of an epoch
        ("SIGKILL", 11, 0),  # in the last update
        ("SIGTERM", 3, 0),  # in the last update of an epoch
        ("SIGUSR1", 9, 2),
    )
}
CODES = {"SIGKILL": -9, "SIGTERM": 75, "SIGUSR1": 75}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    """The run that was left alone, those that were stopped and started again, and every exit code."""
    root = tmp_path_factory.mktemp("runs")
    cases = [{"arguments": ["train", *RUN, "--workers", "0", "--out", str(root / "alone")]}]
    for name, stop in STOPS.items():
        out = str(root / name.replace(" ", "-"))
        start = ["train", *RUN, "--workers", str(stop["workers"]), "--out", out]
        # The run goes on by its name, or by the same command: there with another number of workers.
        again = ["train", "--resume", out] if stop["workers"] else ["train", *RUN, "--workers", "1", "--out", out]
        cases += [{"arguments": start, **stop}, {"arguments": again}]
    codes = run_stopped("vtk_cli.train", cases, folder=root, cache=root / "cache")
    return root, {"alone": codes[:1]} | {
        name: codes[at : at + 2] for name, at in zip(STOPS, range(1, len(codes), 2), strict=True)
    }


@pytest.mark.parametrize("name", STOPS)
def test_a_stopped_training_goes_on_to_the_very_same_end(runs: tuple[Path, dict[str, list[int]]], name: str) -> None:
    root, codes = runs
    assert codes["alone"] == [0]
    assert codes[name] == [CODES[STOPS[name]["signal"]], 0]
    alone, again = root / "alone", root / name.replace(" ", "-")
    assert (again / "metrics.jsonl").read_text() == (alone / "metrics.jsonl").read_text()
    for file in ("model.safetensors", "ema.safetensors", "best.safetensors"):
        one, other = load_file(alone / file), load_file(again / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), file
        with safe_open(alone / file, "pt") as left, safe_open(again / file, "pt") as right:
            assert left.metadata() == right.metadata()
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (alone, again)]
    for key in ("top1", "nll", "ema_top1", "ema_nll", "updates", "epochs"):
        assert summaries[0][key] == summaries[1][key]
    assert summaries[0]["updates"] == UPDATES
    history = json.loads((again / "run.json").read_text())["history"]
    assert [run["status"] for run in history] == ["killed" if "SIGKILL" in name else "preempted"]


def test_the_drawn_things_do_matter(runs: tuple[Path, dict[str, list[int]]]) -> None:
    """The comparison above would be empty if nothing had been learnt between the first and the last epoch."""
    root, _ = runs
    rows = [json.loads(line) for line in (root / "alone" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert len({row["loss"] for row in rows}) == 3
    last, averaged = (load_file(root / "alone" / f"{name}.safetensors") for name in ("model", "ema"))
    assert not torch.equal(last["head.weight"], averaged["head.weight"])
