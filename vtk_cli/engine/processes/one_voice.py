"""What several processes of one command have to complain of is said once.

An error that all of them raise is said by the first. One that another process is alone with is said by that process,
by its number. They tell one another at the store where they meet, which torchrun's agent holds, or else the first
process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from torch._C._distributed_c10d import Store

from vtk_cli.console import Console
from vtk_cli.engine.processes.launchers import adopt_slurm_step
from vtk_cli.engine.processes.meeting import comes, shared_store
from vtk_cli.errors import PeerLost

_PATIENCE = timedelta(seconds=10)
"""How long the first process is waited for, who speaks for all, and a launcher that ends the others of a lost one."""

_REASON_KNOWN = "reason known"
_SIGNS_OF_LOSS = (
    "gloo/transport/tcp/pair",
    "Connection closed by peer",
    "Connection reset by peer",
    "remote server shutdown",
    "ncclRemoteError",
)


@contextmanager
def lost_peers_named() -> Iterator[None]:
    """Where another process is gone, this one's error says so in plain words.

    Raises:
        PeerLost: instead of the error of torch.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _SIGNS_OF_LOSS):
            raise
        what = "another process of this training has ended without a word"
        raise PeerLost(f"{what}; run the same command again to go on from the last checkpoint") from error


def complain(text: str, code: int, store: Store | None, *, of_loss: bool) -> int:
    """Say on stderr why the command failed, unless another process says it.

    Args:
        text: one line.
        code: the exit code that goes with it.
        store: where the processes have met; None where they have not yet.
        of_loss: whether the reason is another process, which may have said its own.

    Returns:
        The exit code: `code`, or after a loss that of the process that knows the reason, so that launchers, which
        report whoever ends first, report that.
    """
    adopt_slurm_step()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with suppress(KeyboardInterrupt):
        if of_loss:
            return _follow(text, code, store, rank, size)
        message = hashlib.sha256(text.encode()).hexdigest()
        if rank == 0:
            _speak_first(text, message, code, store, size)
        else:
            _speak_if_alone(f"process {rank} of {size}: {text}", message, code, store, rank)
    return code


def _speak_first(text: str, message: str, code: int, store: Store | None, size: int) -> None:
    with suppress(RuntimeError):
        if store is not None and store.check([message]):
            return
    Console().error(text)
    with suppress(RuntimeError):  # nobody came: they have something else to say, or nothing
        store = store or shared_store(_PATIENCE)
        store.set(_REASON_KNOWN, str(code))
        store.set(message, "")
        comes(store, _heard(size), _PATIENCE)


def _speak_if_alone(text: str, message: str, code: int, store: Store | None, rank: int) -> None:
    try:
        store = store or shared_store(_PATIENCE)
    except RuntimeError:  # the first process has not come to say anything
        Console().error(text)
        return
    with suppress(RuntimeError):  # the first process has ended, and said why
        store.set(_REASON_KNOWN, str(code))
        if not comes(store, [message], _PATIENCE) and store.add(f"speakers/{message}", 1) == 1:
            Console().error(text)
            store.set(message, "")
        store.set(f"heard/{rank}", "")


def _follow(text: str, code: int, store: Store | None, rank: int, size: int) -> int:
    """Where a process knows the reason, end after it; where none does, one says so."""
    with suppress(RuntimeError):  # the first process has ended, and said why
        store = store or shared_store(_PATIENCE)
        is_known = comes(store, [_REASON_KNOWN], _PATIENCE)
        if not is_known and store.add("speakers", 1) == 1:
            Console().error(text)
        store.set(f"heard/{rank}", "")
        if is_known:
            comes(store, _heard(size), 2 * _PATIENCE)
            return int(store.get(_REASON_KNOWN))
    return code


def _heard(size: int) -> list[str]:
    return [f"heard/{rank}" for rank in range(1, size)]
