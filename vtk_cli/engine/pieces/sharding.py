"""One process a device, each at work on pieces that no other has taken: `--devices`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import tomli_w

from vtk_cli.console import Console
from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.pieces.shard_options import QUEUE, ShardOptions
from vtk_cli.engine.signals import StopRequest, stop_requests
from vtk_cli.errors import JobError

_WATCH_S = 0.2
"""How often the processes are looked after."""


def work_on_devices(command: str, options: ShardOptions, console: Console, kept: str) -> None:
    """Start a command once a device, as `--shard queue`, and wait for all.

    Args:
        command: with its verb, `search evolve`.
        options: of it; each process has them all, but for the run folder.
        console: told of them.
        kept: what a stopped command has kept, for its message.

    Raises:
        UserError: no such device.
        JobError: a process failed.
    """
    devices = [f"cuda:{name}" if name.isdecimal() else name for name in str(options.devices).split(",")]
    for device in devices:
        resolve_device(device)
    settings = options.as_config()
    for ours in ("devices", "device", "out"):
        settings.pop(ours, None)
    with tempfile.NamedTemporaryFile("wb", suffix=".toml") as config:
        tomli_w.dump(settings, config)
        config.flush()
        helping = ["--config", config.name, "--shard", QUEUE, "--quiet"]
        words = [sys.executable, "-m", "vtk_cli", *command.split(), *helping]
        with stop_requests() as stop:
            workers = [subprocess.Popen([*words, "--device", device], stdout=subprocess.DEVNULL) for device in devices]
            console.note(f"{len(workers)} processes at work on {', '.join(devices)}")
            _wait_for(workers, stop, kept)
    failed = [device for device, worker in zip(devices, workers, strict=True) if worker.returncode != 0]
    if failed:
        raise JobError(f"the process on {failed[0]} failed; {kept} are kept: run the same command again")


def _wait_for(workers: Sequence[subprocess.Popen[bytes]], stop: StopRequest, kept: str) -> None:
    """Wait for all to end; when this process is asked to stop, they are, and nobody is left behind."""
    while stop.signal is None and any(worker.poll() is None for worker in workers):
        time.sleep(_WATCH_S)
    if stop.signal is not None:
        for worker in workers:
            worker.terminate()
    for worker in workers:
        worker.wait()
    stop.raise_if_requested(kept)
