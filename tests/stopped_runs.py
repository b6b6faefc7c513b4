"""`vtk` in processes that can be stopped, each the leader of a group of its own."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tests.forked import exit_code, fork, in_a_fork
from vtk_cli.app import main
from vtk_cli.engine.update import Clock


def run_stopped(package: str, cases: Sequence[dict[str, Any]], *, folder: Path, cache: Path) -> list[int]:
    """Run commands in turn.

    Args:
        package: of the subcommand, as `vtk_cli.train`.
        cases: the command's `arguments`, and the update `at` which it gets which `signal`.
        folder: where.
        cache: of the program.

    Returns:
        Their exit codes.
    """
    modules = [f"{package}.{module}" for module in ("objective", "job", "use")]
    codes: list[int] = in_a_fork(
        _run, package, list(cases), folder=folder, modules=modules, environment={"VTK_CACHE": cache}
    )
    return codes


def _run(package: str, cases: list[dict[str, Any]]) -> list[int]:
    objective = importlib.import_module(f"{package}.objective").Objective
    return [exit_code(fork(lambda case=case: _stopped(objective, case))) for case in cases]


def _stopped(objective: Any, case: dict[str, Any]) -> int:
    """Run the command; in the update `at` send this process `signal`."""
    os.setsid()
    losses = objective.__call__

    def signalled(self: Any, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Any:
        if clock.step == case.get("at"):
            os.kill(os.getpid(), signal.Signals[case["signal"]])
        return losses(self, model, batch, clock)

    objective.__call__ = signalled
    return main(case["arguments"])
