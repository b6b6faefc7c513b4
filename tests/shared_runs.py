"""Commands that several processes run together. As a script: cases as JSON on stdin, what each process said on stdout.

torch is imported once; every process of every case is a fork of this script's, made before torch has started a thread.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.command_line import Said


def run_together(
    commands: Sequence[Sequence[object]], *, folder: Path, cache: Path, preload: str, processes: int = 2
) -> list[list[Said]]:
    """Run each command by so many processes, which find one another as those of torchrun do.

    Args:
        commands: each after `vtk`, as `["train", DATA]`.
        folder: where they are run.
        cache: of the program.
        preload: the module that is imported before the forks.
        processes: of each command.

    Returns:
        What each process of each command left behind, by rank.
    """
    cases = [list(map(str, command)) for command in commands]
    done = subprocess.run(
        [sys.executable, "-m", "tests.shared_runs", preload, str(processes), str(folder)],
        input=json.dumps(cases),
        env={**os.environ, "OMP_NUM_THREADS": "1", "VTK_CACHE": str(cache), "GLOO_SOCKET_IFNAME": "lo"},
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [[Said(*one) for one in case] for case in json.loads(done.stdout)]


def main() -> None:
    """Run the cases in turn."""
    preload, processes, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    cases = json.load(sys.stdin)
    importlib.import_module(preload)
    os.chdir(folder)
    json.dump([_shared(arguments, processes) for arguments in cases], sys.stdout)


def _shared(arguments: list[str], processes: int) -> list[tuple[int, str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as said:
        children = [_forked(arguments, rank, processes, port, Path(said)) for rank in range(processes)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        return [
            (code, Path(said, f"out{rank}").read_text(), Path(said, f"err{rank}").read_text())
            for rank, code in enumerate(codes)
        ]


def _forked(arguments: list[str], rank: int, processes: int, port: int, said: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(said / f"{name}{rank}", os.O_WRONLY | os.O_CREAT), stream)
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in names.items()}}
        from vtk_cli.app import main as vtk

        code = vtk(arguments)
    except Exception:  # noqa: BLE001  (told, and then this process ends)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
