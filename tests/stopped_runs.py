"""`vtk` in processes that can be stopped. Run as a script: cases as JSON on stdin, their exit codes on stdout.

torch is imported once; every case is a fork of this process, made before torch has started a thread. A case is the
command's arguments, and the update in which which signal comes. The script's argument is the subcommand's package.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any

from torch import nn

from vtk_cli.app import main
from vtk_cli.engine.update import Clock


def stopped(objective: Any, case: dict[str, Any]) -> int:
    """Run the command; in the update `at` send this process `signal`."""
    losses = objective.__call__

    def signalled(self: Any, model: nn.Module, batch: tuple[Any, ...], clock: Clock) -> Any:
        if clock.step == case.get("at"):
            os.kill(os.getpid(), signal.Signals[case["signal"]])
        return losses(self, model, batch, clock)

    objective.__call__ = signalled
    return main(case["arguments"])


if __name__ == "__main__":
    folder = sys.argv[1]
    losses_of = importlib.import_module(f"{folder}.objective").Objective
    for module in ("job", "use"):  # before the forks
        importlib.import_module(f"{folder}.{module}")
    codes = []
    for one in json.load(sys.stdin):
        child = os.fork()
        if not child:
            os.setsid()
            os.dup2(2, 1)  # the codes alone go to stdout
            code = 70
            try:
                code = stopped(losses_of, one)
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stdout.write(json.dumps(codes))
