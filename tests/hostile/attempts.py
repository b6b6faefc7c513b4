"""`vtk` on hostile input, watched: what it said, how long it took, how much memory, what it ran, where it reached.

As a script: a server that imports the modules named by its arguments once, and runs every command in a fork of itself,
made before torch has started a thread. A wish is a JSON line on stdin; its answer is a JSON line on stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.command_line import Said

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
"""A command that has not ended by then is ended."""
SECONDS, MIB = 20, 1024
"""What a hostile input may cost: so many seconds, on a busy machine also, and so much memory above the start."""
_CAP = 8 * 2**30
"""Of the memory that a fork may reserve: what goes wrong here does not take the machine with it."""
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect")
"""The interpreter's own names of what would be running something, or asking the network."""


@dataclass(frozen=True)
class Attempt(Said):
    """A command that ended.

    Args:
        seconds: from its fork to its end.
        mib: the peak of its memory above what it began with.
        ran: programs it started and hosts it called.
        reached: what it opened in the folder that was not given to it.
    """

    seconds: float
    mib: float
    ran: tuple[str, ...]
    reached: tuple[str, ...]

    @property
    def within_bounds(self) -> bool:
        """Whether it cost no more than hostile input may, ran nothing and stayed where it was sent."""
        return self.seconds < SECONDS and self.mib < MIB and not self.ran and not self.reached

    @property
    def refusal(self) -> str:
        """The one line with which it refused the input, within the bounds."""
        assert self.within_bounds, self
        return self.complaint


class Attempts:
    """The server's other side.

    Args:
        folder: where commands run; `folder/outside` is what no command is given.
        modules: to import before the forks.
    """

    def __init__(self, folder: Path, *modules: str) -> None:
        self.folder, self.outside = folder, folder / "outside"
        self.outside.mkdir(parents=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.attempts", *modules],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "VTK_CACHE": str(folder / "cache"), "COLUMNS": "120"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: object, folder: Path | None = None) -> Attempt:
        """Run `vtk WORDS` in `folder`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        wish = {"words": [*map(str, words)], "folder": str(folder or self.folder), "outside": str(self.outside)}
        stdin.write(json.dumps(wish) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline())
        ran, reached = tuple(answer.pop("ran")), tuple(answer.pop("reached"))
        return Attempt(**answer, ran=ran, reached=reached)

    def close(self) -> None:
        """End the server."""
        self._process.kill()  # it waits for a wish, and has nothing to put away
        self._process.communicate()


def _serve() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    from vtk_cli.app import main

    for line in sys.stdin:
        sys.stdout.write(json.dumps(_watched(main, json.loads(line))) + "\n")
        sys.stdout.flush()


def _watched(main: Any, wish: dict[str, Any]) -> dict[str, Any]:
    files = [os.memfd_create(name) for name in ("out", "err", "ran", "reached", "resident")]
    start = time.monotonic()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setsid()
            os.write(files[-1], str(_resident()).encode())  # of what it shares with its parent only a part is its own
            code = _run(main, wish, files)
        except BaseException:  # noqa: BLE001  (told, and then this process ends)
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    seconds = time.monotonic() - start
    out, err, ran, reached, before = (_content(file) for file in files)
    peak = used.ru_maxrss * 2**10
    said = {"code": os.waitstatus_to_exitcode(status), "out": out, "err": err}
    watched = {"ran": ran.splitlines(), "reached": reached.splitlines()}
    return {**said, **watched, "seconds": seconds, "mib": (peak - int(before)) / 2**20}


def _run(main: Any, wish: dict[str, Any], files: list[int]) -> int:
    for number, file in enumerate(files[:2], 1):
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(wish["folder"])
    signal.alarm(PATIENCE_S)
    cap = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + _CAP
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = ["vtk", *wish["words"]]
    ran, reached = files[2:4]
    outside = wish["outside"] + os.sep

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _RUNS:
            os.write(ran, f"{event} {arguments}\n".encode("utf-8", "backslashreplace"))
        elif event == "open" and isinstance(arguments[0], str | bytes):
            place = os.path.realpath(os.fsdecode(arguments[0]))  # pathlib's raises on loops
            if place.startswith(outside):
                os.write(reached, f"{place}\n".encode("utf-8", "backslashreplace"))

    sys.addaudithook(note)
    return int(main(wish["words"]))


def _content(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(file, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    _serve()
