"""Processes meet whatever those before them left where they meet."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from vtk_cli.engine.processes.meeting import own_store

PATIENCE = timedelta(seconds=60)


@pytest.mark.parametrize("late", [0, 1, 2])
def test_restarted_processes_find_one_another_and_not_those_before_them(late: int) -> None:
    """Whoever comes last: what is in the store then is of dead processes."""
    shared, size = HashStore(), 3

    def join(rank: int) -> tuple[bytes, bool]:
        if attempt and rank == late:
            time.sleep(0.3)
        own = own_store(shared, rank, size, PATIENCE)
        is_new = not own.check([f"address/{rank}"])
        own.set(f"address/{rank}", f"{attempt}")
        own.wait([f"address/{other}" for other in range(size)], PATIENCE)
        return b"".join(own.get(f"address/{other}") for other in range(size)), is_new

    for attempt in range(3):
        with ThreadPoolExecutor(size) as pool:
            assert list(pool.map(join, range(size))) == [(f"{attempt}".encode() * size, True)] * size


def test_a_process_that_never_comes_is_not_waited_for_for_ever() -> None:
    with pytest.raises(RuntimeError, match="process 1 did not come"):
        own_store(HashStore(), 0, 2, timedelta(seconds=0.2))
    with pytest.raises(RuntimeError):
        own_store(HashStore(), 1, 2, timedelta(seconds=0.2))
