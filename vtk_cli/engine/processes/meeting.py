"""Where the processes of one training meet: a store of torch's, with names that only they have.

torchrun's agent keeps its store while it restarts its processes, with everything that those before them wrote there,
and no two agents agree on how often they have restarted (github.com/pytorch/pytorch/issues/135712). Processes that find
the addresses of dead ones there wait for them for ever; so they agree on a new prefix each time.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import rendezvous

from vtk_cli.engine.processes.launchers import adopt_slurm_step
from vtk_cli.errors import JobError

_LOOK_AGAIN_S, _ANSWER = 0.02, timedelta(seconds=0.1)


def meet(patience: timedelta = default_pg_timeout) -> Store:
    """The store of this process and of those that were started with it; empty at first.

    Args:
        patience: how long to wait for the others.

    Raises:
        JobError: not all have come.
    """
    try:
        store = shared_store(patience)
        return own_store(store, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), patience)
    except RuntimeError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise JobError(f"the processes did not meet at {place} ({str(error).splitlines()[0]})") from error


def shared_store(patience: timedelta) -> Store:
    """The store as the launcher's variables name it, with whatever is written there.

    Raises:
        RuntimeError: it cannot be reached.
    """
    adopt_slurm_step()
    store, _, _ = next(rendezvous("env://", timeout=patience))
    return store  # type: ignore[no-any-return]


def own_store(store: Store, rank: int, size: int, patience: timedelta) -> Store:
    """The part of `store` that belongs to the `size` processes that call this now, whatever others left there.

    Raises:
        RuntimeError: not all have come.
    """
    prefix = _invite(store, size, patience) if rank == 0 else _enter(store, rank, patience)
    return PrefixStore(prefix, store)


def comes(store: Store, keys: list[str], patience: timedelta) -> bool:
    """Whether all `keys` are written before `patience` is over.

    torch's own `Store.wait` prints a warning of its socket each time that it is.
    """
    deadline = time.monotonic() + patience.total_seconds()
    while not store.check(keys):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True


def _enter(store: Store, rank: int, patience: timedelta) -> str:
    """Take the seat of `rank` under a name of one's own, and wait to be told the prefix by that name."""
    name = uuid.uuid4().hex
    store.set(f"seat/{rank}", name)
    store.wait([f"prefix/{name}"], patience)
    prefix = store.get(f"prefix/{name}").decode()
    store.set(f"{prefix}/here/{rank}", "")
    return prefix


def _invite(store: Store, size: int, patience: timedelta) -> str:
    """Tell each name in a seat the prefix, until its rank says it by that prefix; the name of a dead one never does."""
    prefix, deadline = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    for rank in range(1, size):
        while True:
            if store.check([seat := f"seat/{rank}"]):
                store.set(f"prefix/{store.get(seat).decode()}", prefix)
            if comes(store, [f"{prefix}/here/{rank}"], _ANSWER):
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"process {rank} did not come")
    return prefix
