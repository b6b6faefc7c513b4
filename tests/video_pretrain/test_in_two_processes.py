"""`vtk video-pretrain run` by two processes on one machine: what one process comes to, they come to together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.command_line import Said
from tests.shared_runs import run_together
from tests.video_pretrain.tiny_runs import CPU
from vtk_cli.errors import ExitCode

# 24 videos, 8 an update: 21 updates. Of SGD: Adam would make rounding errors of gradients that are zero (those of the
# keys' biases) into steps.
SMALL = (
    *("--epochs", "7", "--batch-size", "8", "--knn-epochs", "7", "--evaluate-epochs", "7"),
    *("--precision", "fp32", "--optimizer", "sgd", "--warmup", "0", "--quiet", *CPU),
)
DIGITS = ("--recipe", "digits-ssl", *SMALL)
TRANSFORMER = ("--model", "timesformer_tiny", "--no-head-bn", "--lr", "0.1")
TIME = ("--recipe", "digits-supervised", "--objective", "supervised", *SMALL, "--lr", "0.05")
CASES: dict[str, tuple[str, ...]] = {
    "simclr with tokens": (*DIGITS, *TRANSFORMER, "--time", "order,flow", "--accumulate", "2"),
    "time": (*TIME, "--time", "order,debias,flow", "--ema-decay", "0.9"),
    "time, each its own order": (*TIME, "--time", "order,debias,flow", "--time-perm", "sample", "--clip-norm", "1"),
}
NORMALISED: dict[str, tuple[str, ...]] = {
    "simclr": (*DIGITS, "--lr", "0.02", "--views", "3"),
    "byol": (*DIGITS, "--lr", "0.02", "--method", "byol", "--predictor-width", "32", "--momentum-encoder", "0.9"),
    "swav": (*DIGITS, "--lr", "0.02", "--method", "swav", "--prototypes", "20"),
}
"""With batch normalisation over both processes, as their recipe has it; in float64."""
SHARED = ["simclr with tokens", "byol"]
"""Of each of these processes hold a part."""
FOUND = [*((name, "ddp") for name in (*CASES, *NORMALISED)), *((name, "fsdp") for name in SHARED)]

pytestmark = pytest.mark.slow


def together(
    folder: Path, commands: list[list[object]], processes: int, patches: str | None = None
) -> list[list[Said]]:
    return run_together(
        commands,
        folder=folder,
        cache=folder / "cache",
        preload="vtk_cli.video_pretrain.use",
        patches=patches,
        processes=processes,
    )


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], list[Said]]]:
    """The runs of one process and of two, by case and by what each process holds, and what they said."""
    root = tmp_path_factory.mktemp("runs")
    said: dict[tuple[str, str], list[Said]] = {}
    for cases, patches in ((CASES, None), (NORMALISED, "tests.video_pretrain.in_double")):
        for processes, ways in (
            (1, [(name, "alone") for name in cases]),
            (2, [way for way in FOUND if way[0] in cases]),
        ):
            commands = [
                ["video-pretrain", "run", clips, *cases[name], "--out", f"{name}, {held}"]
                + ([] if held == "alone" else ["--parallel", held])
                for name, held in ways
            ]
            done = together(root, commands, processes, patches)
            said |= dict(zip(ways, done, strict=True))
    return root, said


@pytest.mark.parametrize(("name", "held"), FOUND)
def test_two_processes_come_to_the_weights_losses_and_answers_of_one(
    runs: tuple[Path, dict[tuple[str, str], list[Said]]], name: str, held: str
) -> None:
    root, said = runs
    for way in ((name, "alone"), (name, held)):
        assert {one.code for one in said[way]} == {0}, said[way]
    alone, together = root / f"{name}, alone", root / f"{name}, {held}"
    one, two = (load_file(run / "model.safetensors") for run in (alone, together))
    torch.testing.assert_close(two, one, atol=1e-6, rtol=1e-6)
    for mine, ours in zip(rows(alone), rows(together), strict=True):
        assert mine.keys() == ours.keys()
        assert ours["loss"] == pytest.approx(mine["loss"], rel=1e-5)
        assert ours["step"] == mine["step"]
    summaries = [json.loads((run / "summary.json").read_text()) for run in (alone, together)]
    assert summaries[0]["top1"] == summaries[1]["top1"]
    steps = -(-3 // (2 if "--accumulate" in {**CASES, **NORMALISED}[name] else 1)) * 7
    assert summaries[0]["updates"] == summaries[1]["updates"] == steps


LOOKS = {
    "knn": ("eval", "simclr with tokens, alone", "--protocol", "knn", "--knn-k", "3", "--shortcuts"),
    "linear": ("eval", "simclr with tokens, alone", "--protocol", "linear", "--test-clips", "2"),
    "retrieval": ("eval", "simclr with tokens, alone", "--protocol", "retrieval"),
    "test": ("eval", "time, alone", "--protocol", "test", "--test-clips", "2", "--test-crops", "3"),
}


@pytest.fixture(scope="module")
def looks(clips: Path, runs: tuple[Path, Any]) -> tuple[Path, dict[str, tuple[Said, list[Said]]]]:
    """What one process says of seven videos, one of them broken, and what two say."""
    root, _ = runs
    lines = [f"{clips / line}" for line in (clips / "val.csv").read_text().splitlines()[:6]]
    (root / "broken.mp4").touch()
    (root / "seven.csv").write_text("\n".join([*lines, "broken.mp4 0"]) + "\n")
    found = []
    for processes in (1, 2):
        commands = [
            [
                *("video-pretrain", *command[:2], clips, "--val", "seven.csv", *command[2:], *CPU, "--allow-missing"),
                *("--json", "--export", f"{name} {processes}.npz", "--out", f"{name} {processes}"),
            ]
            for name, command in LOOKS.items()
        ]
        found.append(together(root, commands, processes))
    return root, {name: (one, both) for name, (one,), both in zip(LOOKS, *found, strict=True)}


@pytest.mark.parametrize("name", LOOKS)
def test_two_processes_look_at_each_video_once_and_say_what_one_says(
    looks: tuple[Path, dict[str, tuple[Said, list[Said]]]], name: str
) -> None:
    root, said = looks
    alone, (first, second) = said[name]
    assert (second.code, second.out) == (0, "")
    one, two = alone.object, first.object
    assert two.pop("features") != one.pop("features")  # the files' names
    assert two == one
    assert one["missing"] == 1
    kept, both = (np.load(root / f"{name} {count}.npz") for count in (1, 2))
    assert len(kept["feat"]) == 6 * {"knn": 1, "linear": 2, "retrieval": 1, "test": 6}[name]
    for key in ("feat", "path", "start", "end"):
        np.testing.assert_array_equal(both[key], kept[key])


def test_two_processes_train_with_all_temporal_losses_and_name_every_broken_video(clips: Path, tmp_path: Path) -> None:
    bad = [tmp_path / f"{number}.mp4" for number in range(2)]
    for part, broken in (("train", bad), ("val", bad[:1])):
        lines = [f"{clips / line}" for line in (clips / f"{part}.csv").read_text().splitlines()]
        lines = lines[: len(lines) - (part == "train") * 2]
        (tmp_path / f"{part}.csv").write_text("\n".join([*lines, *(f"{path} 0" for path in broken)]) + "\n")
    command = ["video-pretrain", "run", "train.csv", "--val", "val.csv", *TIME, "--time", "order,debias,flow"]
    ((first, second),) = together(tmp_path, [[*command, "--epochs", "1", "--out", "run"]], 2)
    assert (first.code, second.code, second.err) == (ExitCode.USAGE, ExitCode.USAGE, "")
    assert "1 of 9 test videos cannot be decoded" in " ".join(first.err.split())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["broken videos"], summary["missing test videos"]) == (2, 1)
    listed = (tmp_path / "run" / "bad_files.csv").read_text()
    assert all(str(path) in listed for path in bad)
