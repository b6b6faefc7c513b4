"""Rows as independent work: one shard of them, a process a device, and whether all are there to be merged."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import tomli_w
import torch

from vtk_cli.console import Console
from vtk_cli.engine.devices import resolve_device
from vtk_cli.engine.signals import StopRequest, stop_requests
from vtk_cli.errors import ExitCode, JobError
from vtk_cli.files import Busy
from vtk_cli.similarity.command import SimilarityOptions
from vtk_cli.similarity.preparation import Named, prepare, require_none
from vtk_cli.similarity.rows import Rows

_WATCH_S = 0.2
"""How often the processes of `--devices` are looked after."""


def work_on_shard(options: SimilarityOptions, named: list[Named], device: torch.device, console: Console) -> ExitCode:
    """Compute some rows into the store; any number of such processes may run at once."""
    with stop_requests() as stop:
        rows = prepare(options, named, device, console, lambda: stop.raise_if_requested("finished rows"))
        index, count = options.shard_numbers or (0, 1)
        mine = range(index, len(named), count)
        for source in mine:
            busy = contextlib.suppress(Busy) if options.shard == "queue" else contextlib.nullcontext()
            with busy:
                rows.row(source, wait=options.shard != "queue")
    finished = [rows.comparison.names[source] for source in mine if rows.is_finished(source)]
    console.text(f"shard {options.shard}: {len(finished)} rows are finished; assemble them with --merge")
    console.emit({"shard": options.shard, "finished": finished, "attacks": rows.work.attacks})
    return ExitCode.DONE


def work_on_devices(options: SimilarityOptions, console: Console) -> None:
    """Start this command once a device, each taking rows that no other process works on, and wait for all."""
    devices = [f"cuda:{name}" if name.isdecimal() else name for name in str(options.devices).split(",")]
    for device in devices:
        resolve_device(device)
    settings = options.as_config() | {"shard": "queue"}
    for ours in ("devices", "device", "out"):
        settings.pop(ours, None)
    with tempfile.NamedTemporaryFile("wb", suffix=".toml") as config:
        tomli_w.dump(settings, config)
        config.flush()
        command = [sys.executable, "-m", "vtk_cli", "similarity", "--config", config.name, "--quiet"]
        with stop_requests() as stop:
            workers = [
                subprocess.Popen([*command, "--device", device], stdout=subprocess.DEVNULL) for device in devices
            ]
            console.note(f"{len(workers)} processes at work on {', '.join(devices)}")
            _wait_for(workers, stop)
    failed = [device for device, worker in zip(devices, workers, strict=True) if worker.returncode != 0]
    if failed:
        raise JobError(f"the process on {failed[0]} failed; finished rows are kept: run the same command again")


def _wait_for(workers: Sequence[subprocess.Popen[bytes]], stop: StopRequest) -> None:
    """Wait for all to end; when this process is asked to stop, they are, and nobody is left behind."""
    while stop.signal is None and any(worker.poll() is None for worker in workers):
        time.sleep(_WATCH_S)
    if stop.signal is not None:
        for worker in workers:
            worker.terminate()
    for worker in workers:
        worker.wait()
    stop.raise_if_requested("finished rows")


def require_finished(rows: Rows) -> None:
    """Insist that every row is in the store.

    Raises:
        UserError: naming the first that are missing.
    """
    names = rows.comparison.names
    require_none([name for source, name in enumerate(names) if not rows.is_finished(source)], len(names))
