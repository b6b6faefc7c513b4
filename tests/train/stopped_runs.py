"""`vtk train` in processes that can be stopped. Run as a script: cases as JSON on stdin, their exit codes on stdout.

torch is imported once; every case is a fork of this process, made before torch has started a thread. A case is the
command's arguments, and the update in which which signal comes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from vtk_cli.app import main
from vtk_cli.engine.update import Clock
from vtk_cli.train import job, use  # noqa: F401 - imported before the forks
from vtk_cli.train.objective import Objective


def stopped(case: dict[str, Any]) -> int:
    """Run the command; in the update `at` send this process `signal`."""
    losses = Objective.__call__

    def signalled(self: Objective, model: nn.Module, batch: tuple[Tensor, ...], clock: Clock) -> Iterator[Tensor]:
        if clock.step == case.get("at"):
            os.kill(os.getpid(), signal.Signals[case["signal"]])
        return losses(self, model, batch, clock)

    Objective.__call__ = signalled  # type: ignore[assignment, method-assign]
    return main(["train", *case["arguments"]])


if __name__ == "__main__":
    codes = []
    for case in json.load(sys.stdin):
        child = os.fork()
        if not child:
            os.setsid()
            os.dup2(2, 1)  # the codes alone go to stdout
            code = 70
            try:
                code = stopped(case)
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stdout.write(json.dumps(codes))
