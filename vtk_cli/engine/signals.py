"""Signals that ask a job to stop: noted at once, acted on when the step is done and saved.

Slurm sends SIGUSR1 (or SIGTERM) before the time limit, a person sends SIGINT. The first one only sets a flag. Where no
step is being made (while data are opened, networks built, results drawn) they end the command at once, in order.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from vtk_cli.errors import Preempted, Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass
class StopRequest:
    """Whether a signal has asked the job to stop.

    Args:
        signal: the first such signal, None until then.
    """

    signal: signal.Signals | None = None

    def raise_if_requested(self, where_saved: str) -> None:
        """Leave the job if a signal came; call it once the state is saved.

        Args:
            where_saved: what was saved and where, e.g. `step 120 in runs/train/x/checkpoints`.

        Raises:
            Preempted: SIGTERM or SIGUSR1 came (exit code 75).
            KeyboardInterrupt: SIGINT came (exit code 130).
        """
        if self.signal is None:
            return
        story = f"stopped by {self.signal.name} after saving {where_saved}; run the same command to go on"
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt(story)
        raise Preempted(story)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note SIGTERM, SIGINT and SIGUSR1 instead of dying of them; the handlers before are put back at the end.

    A second SIGINT raises KeyboardInterrupt at once. A signal that came when nobody asked any more is passed on to the
    handler before, where that is one of Python's: between two contexts no request is lost. Outside the main thread,
    where Python allows no handlers, nothing is installed and the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    interrupts = 0

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            raise KeyboardInterrupt
        if request.signal is None:
            request.signal = signal.Signals(number)

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            # None: a handler that was not set from Python and cannot be set back from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if request.signal is not None and callable(before[request.signal]):
        signal.raise_signal(request.signal)


@contextmanager
def prompt_stops() -> Iterator[list[Stopped]]:
    """Where no `stop_requests` notes them, SIGTERM and SIGUSR1 end the command as SIGINT does, by an exception.

    Everything that is open is left in order: the record of the run says `preempted`, temporary files are removed.
    Only the first counts, so that nothing disturbs the leaving; processes that were forked meanwhile die of them.

    Yields:
        The `Stopped` that was raised, when one has been: whoever swallows it on its way is not the last to know.

    Raises:
        Stopped: one came.
    """
    raised: list[Stopped] = []
    owner, numbers = os.getpid(), (signal.SIGTERM, signal.SIGUSR1)
    if threading.current_thread() is not threading.main_thread():
        yield raised
        return

    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if not raised:
            name = signal.Signals(number).name
            raised.append(Stopped(f"stopped by {name}; all that was saved is there; run the same command to go on"))
            raise raised[0]

    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield raised
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
