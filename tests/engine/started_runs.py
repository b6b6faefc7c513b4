"""`vtk train` at its smallest, started in processes of its own; they can be waited for, signaled and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.command_line import Said

EPOCHS = 20  # of two updates
TRAIN = (
    *("train", "--model", "test_vit", "--img-size", "32", "--images-per-class", "8", "--batch-size", "40"),
    *("--epochs", str(EPOCHS), "--evaluate-epochs", str(EPOCHS), "--workers", "0", "--device", "cpu", "--json"),
    *("--checkpoint-seconds", "0"),
)
_PATIENCE_S = 240
_LAUNCHER_NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM", "TORCHELASTIC")


class Started:
    """A command that runs.

    Args:
        words: the command line after `python`.
        out: where the run is written, and what is said beside it.
        name: told from others that write the same run.
    """

    def __init__(self, words: Sequence[str], out: Path, name: str = "said") -> None:
        self.out, self._name = out, name
        clean = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHER_NAMES)}
        with self._file("out").open("w") as told, self._file("err").open("w") as complained:
            self._process = subprocess.Popen(
                [sys.executable, *words, "--out", str(out)],
                env=clean | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
                cwd=Path(__file__).parents[2],
                stdout=told,
                stderr=complained,
            )

    def _file(self, stream: str) -> Path:
        return self.out.with_name(f"{self.out.name}-{self._name}.{stream}")

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process that was started, and to no other."""
        self._process.send_signal(number)

    def kill_first_process(self) -> None:
        """SIGKILL to the one of the processes that writes the run."""
        os.kill(record(self.out)["pid"], signal.SIGKILL)

    def wait_for_steps(self) -> None:
        """Wait until this command has saved a checkpoint of its own."""
        before = {path.name for path in self.out.glob("checkpoints/step-*")}
        self._wait_until(lambda: {path.name for path in self.out.glob("checkpoints/step-*")} - before)

    def wait_for_run(self) -> None:
        """Wait until the processes have met and opened the run."""
        self._wait_until((self.out / "run.json").exists)

    def _wait_until(self, is_so: Any) -> None:
        limit = time.monotonic() + _PATIENCE_S
        while not is_so():
            assert self._process.poll() is None, self._file("err").read_text()
            assert time.monotonic() < limit
            time.sleep(0.02)

    def wait(self) -> Said:
        """Wait for its end."""
        code = self._process.wait(_PATIENCE_S)
        return Said(code, *(self._file(stream).read_text() for stream in ("out", "err")))


def by_nproc(out: Path, *words: str) -> Started:
    """Two processes by `--nproc`."""
    return Started(["-m", "vtk_cli", *TRAIN, "--nproc", "2", *words], out)


def by_torchrun(out: Path, *launch: str, name: str = "said") -> Started:
    """By torchrun, told how."""
    return Started(["-m", "torch.distributed.run", *launch, "-m", "vtk_cli", *TRAIN], out, name)


def weights(out: Path) -> dict[str, torch.Tensor]:
    """What was trained."""
    return load_file(out / "model.safetensors")


def record(out: Path) -> dict[str, Any]:
    """The run's `run.json`."""
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def left_behind(out: Path) -> list[str]:
    """Processes that still work on the run."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended
            continue
    return [line for line in lines if f"--out {out} " in line]
