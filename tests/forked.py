"""Functions called in forks of one process that has imported torch: they cost what they do, and no import.

`in_a_fork` starts the process at its first call; it lasts as long as the process of the tests. It only imports and
forks, so that torch has no threads where it forks. As a script: that process, which reads a JSON line a call.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE_S = 600.0
LAUNCHERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM", "TORCHELASTIC")
"""What the names of variables begin with that launchers set."""


def in_a_fork(
    function: Callable[..., Any],
    *arguments: Any,
    modules: Sequence[str] = (),
    folder: Path | None = None,
    environment: Mapping[str, object] | None = None,
) -> Any:
    """Call a function of a module in another process.

    Args:
        function: is imported there by its module's name.
        arguments: what JSON can hold; paths become strings.
        modules: to import first, for all later calls too; what importing them does must disturb none of those.
        folder: where; None: here.
        environment: changes of this process's, without what launchers set.

    Returns:
        What the function returned, through JSON.
    """
    with tempfile.TemporaryDirectory() as kept:
        answer, said = Path(kept, "answer"), Path(kept, "said")
        call = {
            "modules": list(modules),
            "function": [function.__module__, function.__qualname__],
            "arguments": arguments,
            "folder": folder or Path.cwd(),
            "environment": clean_environment(**{name: str(value) for name, value in (environment or {}).items()}),
            "answer": answer,
            "said": said,
        }
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(call, default=str) + "\n")
        server.stdin.flush()
        code = json.loads(server.stdout.readline())
        assert code == 0, f"{function.__qualname__} ended with {code}: {said.read_text(errors='replace')}"
        return json.loads(answer.read_text())


def clean_environment(**changes: str) -> dict[str, str]:
    """The variables of this process but for what launchers set, for processes on this machine."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    return own | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | changes


def world_variables(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells a process of its place."""
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in found.items()}


def free_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fork(run: Callable[[], int]) -> int:
    """Start `run` in a fork that ends with the code it returns, or 70; the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = run()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001  (told, and then this process ends)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def exit_code(child: int) -> int:
    """Wait for the end of a fork."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forked"],
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    importlib.import_module("torch")
    for line in sys.stdin:
        call = json.loads(line)
        for module in call["modules"]:
            importlib.import_module(module)
        gc.freeze()  # a collection in a fork does not write to what it shares
        sys.stdout.write(json.dumps(_ended(fork(lambda call=call: _called(call)))) + "\n")
        sys.stdout.flush()


def _ended(child: int) -> int | None:
    """The exit code; None where the process had to be killed."""
    descriptor = os.pidfd_open(child)
    in_time = select.select([descriptor], [], [], PATIENCE_S)[0]
    os.close(descriptor)
    if not in_time:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    code = exit_code(child)
    return code if in_time else None


def _called(call: Mapping[str, Any]) -> int:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(call["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.clear()
    os.environ |= call["environment"]
    os.chdir(call["folder"])
    module, name = call["function"]
    found = getattr(importlib.import_module(module), name)(*call["arguments"])
    Path(call["answer"]).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    _serve()
