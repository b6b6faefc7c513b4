"""`vtk` in processes that tests may kill, signal, race and starve. As a script: a server of forks, a JSON line a wish.

torch is imported once; every command is a fork of the server, made before torch has started a thread, in a session of
its own. The test that asks has the process's number, so it chooses the moment of a signal itself.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.command_line import Said

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300.0
MODULES = (
    *(f"vtk_cli.{name}.job" for name in ("train", "prune", "detect", "segment", "video_pretrain", "search", "adapt")),
    *("vtk_cli.similarity.job", "vtk_cli.families.proof", "vtk_cli.families.bench", "vtk_cli.runs.command"),
    *("vtk_cli.data.command", "vtk_cli.doctor.command", "tests.faults.hooks"),
)


class Fork:
    """A command that runs. Args: its process, and where its output goes."""

    def __init__(self, server: Forks, process: int, said: Path, started: float) -> None:
        self._server, self.process, self._said, self._started = server, process, said, started
        self.seconds = 0.0

    def ended(self, within: float = PATIENCE_S) -> Said | None:
        """What it left behind; None when it has not ended after so many seconds."""
        code = self._server.ask({"wait": self.process, "seconds": within})
        if code is None:
            return None
        self.seconds = time.monotonic() - self._started
        return Said(code, *((self._said / name).read_text(errors="replace") for name in ("out", "err")))

    def end(self) -> Said:
        """Wait for its end."""
        said = self.ended()
        assert said is not None, f"it goes on after {PATIENCE_S} s: {(self._said / 'err').read_text()}"
        return said

    def wait_until(self, file: Path) -> None:
        """Wait until it has made the file."""
        while not file.exists():
            said = self.ended(0.005)
            assert said is None, said

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send it a signal, or to its workers as well; nothing happens where it has ended."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process, number)

    def killed_after(self, seconds: float) -> Said:
        """Kill it if it goes on for so long."""
        said = self.ended(seconds)
        if said is None:
            self.signal(signal.SIGKILL)
            said = self.end()
        return said

    def is_followed(self, within: float = 30) -> bool:
        """Whether processes that it started are left, after so many seconds for them to end."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            try:
                os.killpg(self.process, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.02)
        return True


class Forks:
    """The server's other side.

    Args:
        folder: where commands run and their output goes.
        cache: of the program.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks", *MODULES],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "VTK_CACHE": str(cache), "COLUMNS": "100"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, wish: Mapping[str, Any]) -> Any:
        """The server's answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(wish), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        *command: object,
        hooks: Sequence[Sequence[object]] = (),
        cache: Path | None = None,
        folder: Path | None = None,
        stdout: int | None = None,
    ) -> Fork:
        """Start `vtk COMMAND`.

        Args:
            command: the words after `vtk`.
            hooks: functions of `hooks.py` that are called before, each with its arguments.
            cache: other than usual.
            folder: where it runs, other than usual.
            stdout: a number of a file of this process, or -1 for none; None: a file.
        """
        self._count += 1
        said = self.folder / "said" / str(self._count)
        said.mkdir(parents=True)
        wish = {
            "start": [*map(str, command)],
            "hooks": [[*map(_plain, hook)] for hook in hooks],
            "said": str(said),
            "folder": str(folder or self.folder),
            "cache": str(cache or self.cache),
            "stdout": f"/proc/{os.getpid()}/fd/{stdout}" if stdout is not None and stdout >= 0 else stdout,
        }
        return Fork(self, self.ask(wish), said, time.monotonic())

    def run(self, *command: object, **how: Any) -> Said:
        """Run `vtk COMMAND` to its end; see `start`."""
        return self.start(*command, **how).end()

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str | None) else str(value)


def _serve() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        wish = json.loads(line)
        answer = _forked(wish) if "start" in wish else _waited(wish["wait"], wish["seconds"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _waited(process: int, seconds: float) -> int | None:
    descriptor = os.pidfd_open(process)
    try:
        if not select.select([descriptor], [], [], seconds)[0]:
            return None
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _forked(wish: Mapping[str, Any]) -> int:
    child = os.fork()
    if child:
        with suppress(PermissionError):  # it has done so itself
            os.setpgid(child, child)
        return child
    code = 99
    try:
        os.setpgid(0, 0)
        _redirect(wish)
        os.chdir(wish["folder"])
        os.environ["VTK_CACHE"] = wish["cache"]
        sys.argv = ["vtk", *wish["start"]]
        hooks = importlib.import_module("tests.faults.hooks")
        for name, *arguments in wish["hooks"]:
            getattr(hooks, name)(*arguments)
        from vtk_cli.app import main

        code = main(wish["start"])
    except SystemExit as end:  # rich's answer to a reader that has gone
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001  (told, and then this process ends)
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def _redirect(wish: Mapping[str, Any]) -> None:
    said = Path(wish["said"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(said / "err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    out = os.open(said / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if wish["stdout"] == -1:
        os.close(1)
        sys.stdout = None  # type: ignore[assignment]  # as Python starts where it is closed
    elif wish["stdout"]:
        os.dup2(os.open(wish["stdout"], os.O_WRONLY), 1)
    else:
        os.dup2(out, 1)


if __name__ == "__main__":
    _serve()
