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
from vtk_cli.engine.launchers import adopt_slurm_step
from vtk_cli.engine.meeting import comes, shared_store
from vtk_cli.errors import PeerLost

_PATIENCE = timedelta(seconds=5)
"""How long the first process is waited for, who speaks for all, and a launcher that ends the others of a lost one."""

_REASON_KNOWN, _LOST = "reason known", "lost"
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


def complain(text: str, store: Store | None, *, of_loss: bool) -> None:
    """Say on stderr why the command failed, unless another process says it.

    Args:
        text: one line.
        store: where the processes have met; None where they have not yet.
        of_loss: whether the reason is another process, which may have said its own.
    """
    adopt_slurm_step()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    message = _LOST if of_loss else hashlib.sha256(text.encode()).hexdigest()
    with suppress(KeyboardInterrupt):
        if rank == 0 and not of_loss:
            _speak_first(text, message, store, size)
        else:
            _speak_if_alone(text if of_loss else f"process {rank} of {size}: {text}", message, store, rank, size)


def _speak_first(text: str, message: str, store: Store | None, size: int) -> None:
    with suppress(RuntimeError):
        if store is not None and store.check([message]):
            return
    Console().error(text)
    with suppress(RuntimeError):  # nobody came: they have something else to say, or nothing
        store = store or shared_store(_PATIENCE)
        store.set(_REASON_KNOWN, "")
        store.set(message, "")
        comes(store, _heard(size), _PATIENCE)


def _speak_if_alone(text: str, message: str, store: Store | None, rank: int, size: int) -> None:
    try:
        store = store or shared_store(_PATIENCE)
    except RuntimeError:  # the first process has not come to say anything
        Console().error(text)
        return
    with suppress(RuntimeError):  # the first process has ended, and said why
        if message != _LOST:
            store.set(_REASON_KNOWN, "")
        is_said = comes(store, [_REASON_KNOWN if message == _LOST else message], _PATIENCE)
        if not is_said and store.add(f"speakers/{message}", 1) == 1:
            Console().error(text)
            store.set(message, "")
        store.set(f"heard/{rank}", "")
        if is_said and rank == 0:  # it may hold the store by which those who know why still talk
            comes(store, _heard(size), 2 * _PATIENCE)


def _heard(size: int) -> list[str]:
    return [f"heard/{rank}" for rank in range(1, size)]
