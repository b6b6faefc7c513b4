"""How many processes read images, and how one behaves when the whole process group is told to stop.

The scheduler, `timeout` and Ctrl-C send their signal to the workers too. The main process still needs its batches to
finish the step, and it is the one that decides when to end.
"""

from __future__ import annotations

import os
import signal
import threading

_MOST = 8


def worker_count(asked: int | None) -> int:
    """How many processes read images: as many as asked for, else one a core and at most 8."""
    return min(_MOST, os.cpu_count() or 1) if asked is None else asked


def lost_worker(error: RuntimeError) -> str:
    """One line where `error` is torch's, of a worker that ended unasked; otherwise nothing.

    torch raises it wherever the main process is when it hears of that: in a step as well as in reading.
    """
    text = str(error)
    if not text.startswith("DataLoader worker (pid"):
        return ""
    why = " ".join(text.split()).removeprefix("DataLoader worker ").rstrip(". ")
    return (
        f"a process that reads data has ended: {why}; if memory was short, fewer --workers take less;"
        " run the same command to go on"
    )


def outlive_stop_signals(worker: int) -> None:  # noqa: ARG001
    """In a DataLoader's worker: ignore SIGINT, SIGUSR1 and any SIGTERM but the main process's own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(
        signal, "sigwaitinfo"
    ):  # macOS does not tell who sent a signal; torch ends its workers by a word too
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    # Taken by a thread that can see who sent it; a worker whose main process has died ends by torch's own watchdog.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_main_process, daemon=True).start()


def _obey_main_process() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
