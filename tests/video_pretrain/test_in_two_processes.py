"""`vtk video-pretrain run` by two processes on one machine: what one process comes to, they come to together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.video_pretrain.tiny_runs import CPU, Call
from vtk_cli.errors import ExitCode

# Adam would make rounding errors of gradients that are zero (those of the keys' biases) into steps.
SMALL = ["--epochs", "2", "--batch-size", "8", "--precision", "fp32", "--optimizer", "sgd", "--lr", "0.1", *CPU]
# Networks and heads without batch normalisation: of the CPU's there is none over several processes.
SIMCLR = ["--recipe", "digits-ssl", "--model", "timesformer_tiny", "--no-head-bn", "--time", "order,flow", *SMALL]
TIME = ["--recipe", "digits-supervised", "--objective", "supervised", "--time", "order,flow", "--warmup", "0", *SMALL]
LAUNCHERS = {"WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}

pytestmark = pytest.mark.slow


def together(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`vtk video-pretrain ARGUMENTS` by two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {key: value for key, value in os.environ.items() if key not in LAUNCHERS}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    command = [*launch, "-m", "vtk_cli", "video-pretrain", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("options", [SIMCLR, TIME])
def test_two_processes_come_to_the_weights_losses_and_answers_of_one(
    clips: Path, run: Call, tmp_path: Path, options: list[str]
) -> None:
    code, _, err = run("run", clips, *options, "--out", "one")
    assert code == 0, err
    done = together(tmp_path, "run", clips, *options, "--out", "two")
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name} {text}"
        )
    for alone, shared in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert alone.keys() == shared.keys()
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert shared["step"] == alone["step"]
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two")]
    assert summaries[0]["top1"] == summaries[1]["top1"]
    assert summaries[0]["updates"] == summaries[1]["updates"] == 6


def test_two_processes_train_with_all_temporal_losses_and_name_every_broken_video(clips: Path, tmp_path: Path) -> None:
    bad = [tmp_path / f"{number}.mp4" for number in range(2)]
    for part, broken in (("train", bad), ("val", bad[:1])):
        lines = [f"{clips / line}" for line in (clips / f"{part}.csv").read_text().splitlines()]
        lines = lines[: len(lines) - (part == "train") * 2]
        (tmp_path / f"{part}.csv").write_text("\n".join([*lines, *(f"{path} 0" for path in broken)]) + "\n")
    command = ["run", "train.csv", "--val", "val.csv", *TIME, "--time", "order,debias,flow", "--epochs", "1"]
    command += ["--out", "run"]
    done = together(tmp_path, *command)
    assert done.returncode == 1, done.stderr  # torchrun's own: its processes ended with 2
    assert f"exitcode  : {ExitCode.USAGE:d}" in done.stderr
    assert "1 of 9 test videos cannot be decoded" in " ".join(done.stderr.split())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["broken videos"], summary["missing test videos"]) == (2, 1)
    listed = (tmp_path / "run" / "bad_files.csv").read_text()
    assert all(str(path) in listed for path in bad)
