"""A process that may abort or hang without harm to the one that uses it.

decord 0.6 ends its whole process on some damaged files and never returns from others (dmlc/decord #269, #294); neither
can be caught in the process that it happens in. `multiprocessing` cannot start such a process in a worker of a
`DataLoader`, which may have no children of its kind; this one is an ordinary program, quick to start since nothing of
what its parent has imported is imported again.

It ends when its parent does: its next read finds the pipe closed, and what it does under `limited` the kernel ends.
"""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from vtk_cli.errors import JobError

Work = Callable[[Connection], None]
START_S = 120.0
"""How long a process may take to start, on the slowest of network disks."""
MARGIN_S = 5.0
"""How much later than its parent would a process ends itself."""
_NO_START = "the process that decodes videos does not start"


class Aborted(Exception):
    """The process has ended in the middle of its work."""


class Hung(Exception):
    """The process has not answered in time."""


class Child:
    """A process at work; `close` it, or use it in a `with` statement.

    Args:
        work: what it does with its end of the connection: a function of a module, or a `partial` of one.
        files: descriptors of open files that it shares.

    Raises:
        JobError: the system starts no process.
    """

    def __init__(self, work: Work, files: Sequence[int] = ()) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._ready = False
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()})"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=(theirs.fileno(), *files),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except OSError as error:
            self._connection.close()
            raise JobError(f"{_NO_START}: {error.strerror}") from error
        finally:
            theirs.close()
        self._connection.send(work)

    @property
    def number(self) -> int:
        """Of the process, as the system counts them."""
        return self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, message: Any, patience_s: float) -> Any:
        """Send `message` and wait for the answer.

        Raises:
            Aborted, Hung: there is none; the process is of no use any more.
        """
        self.send(message)
        return self.receive(patience_s)

    def send(self, message: Any) -> None:
        """Send `message`.

        Raises:
            Aborted: nobody is there to take it.
        """
        self._await_start()
        try:
            self._connection.send(message)
        except OSError as error:
            raise Aborted from error

    def receive(self, patience_s: float) -> Any:
        """Wait for what the process sends.

        Raises:
            Aborted, Hung: it sends nothing.
        """
        self._await_start()
        try:
            if not self._connection.poll(patience_s):
                raise Hung
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise Aborted from error

    def close(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _await_start(self) -> None:
        """Wait for the process to say that it is up, so that a video is not charged for the time it takes to start."""
        if self._ready:
            return
        try:
            self._ready = self._connection.poll(START_S) and self._connection.recv()
        except (EOFError, OSError) as error:
            raise JobError(_NO_START) from error
        if not self._ready:
            raise JobError(_NO_START)


def serve(descriptor: int) -> None:
    """What the process runs: take the work from the connection, say that it is there, and do it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when to end
    connection = Connection(descriptor)
    try:
        work: Work = connection.recv()
        connection.send(True)  # noqa: FBT003
        work(connection)
    except (EOFError, OSError):  # the parent is gone
        return


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """In the process: unless it is done in time, the kernel ends it, also where the parent no longer can."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + MARGIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
