"""One training of `vtk train` in processes of its own, and how long an epoch of it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from vtk_cli.errors import JobError


@dataclass(frozen=True)
class Training:
    """What is trained.

    Args:
        name: the network and the images, in words.
        arguments: of `vtk train`.
        is_judged: whether the speed-up has a target: a network whose update is a few milliseconds has none.
    """

    name: str
    arguments: tuple[str, ...]
    is_judged: bool = True


def _vit(size: int, patch: int, *further: str) -> tuple[str, ...]:
    given = (f"img_size={size}", f"patch_size={patch}", *further)
    arguments = [word for argument in given for word in ("--model-arg", argument)]
    return ("--model", "vit_tiny_patch16_224", "--img-size", str(size), *arguments)


SMALLEST = Training("the default network on 200 digits", ("--images-per-class", "20", "--epochs", "3"), is_judged=False)
DEFAULT = Training("the default network", ("--epochs", "15"), is_judged=False)
"""16 tokens, 64 wide, 3 deep: an update takes some 10 ms."""
LARGER = Training("ViT-Ti, 6 deep, 64 tokens", (*_vit(32, 4, "depth=6"), "--batch-size", "64", "--epochs", "1"))
"""An update takes a core about a second."""
LARGE = Training(
    "ViT-S at 224 pixels",
    (
        *("--model", "vit_small_patch16_224", "--img-size", "224", "--batch-size", "256", "--epochs", "10"),
        *("--workers", "6"),
    ),
)
"""For GPUs; images are augmented by workers meanwhile."""


@dataclass(frozen=True)
class Start:
    """How a training is started.

    Args:
        processes: how many share each batch.
        threads: of each; None where GPUs compute.
    """

    processes: int
    threads: int | None = None

    def __str__(self) -> str:
        words = _counted(self.processes, "process", "processes")
        if self.threads is None:
            return words
        return f"{words} of {_counted(self.threads, 'thread', 'threads')}"


@dataclass(frozen=True)
class Measured:
    """What came out: seconds in updates an epoch, without the first second or so, and the loss on validation images."""

    seconds: float
    loss: float


def train_once(work: Training, start: Start, device: torch.device) -> Measured:
    """Train once, by torchrun, in a folder that is removed.

    Raises:
        JobError: the training failed; its last words are in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(start.processes), "-m", "vtk_cli", "train", *work.arguments),
            *(() if "--workers" in work.arguments else ("--workers", "0")),
            *("--device", device.type, "--out", str(Path(folder, "run")), "--json", "--quiet"),
        ]
        threads = {} if start.threads is None else {"OMP_NUM_THREADS": str(start.threads)}
        done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise JobError(f"{work.name} by {start} failed: {_complaint(done)}")
    summary = json.loads(done.stdout)
    return Measured(summary["images"] / summary["images_per_second"], summary["nll"])


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The program's one line, or the last of a traceback; torchrun says much of its own around it."""
    for mark in ("error: ", "[rank"):
        if said := [line for line in done.stderr.splitlines() if line.startswith(mark)]:
            return said[-1].removeprefix("error: ")
    return f"exit code {done.returncode}"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
