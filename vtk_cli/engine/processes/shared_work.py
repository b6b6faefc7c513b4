"""Work that processes do side by side, each its share, and then have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import VtkError

T = TypeVar("T")


def in_every_process(world: World, action: Callable[[], T]) -> list[T]:
    """Do `action` in every process; what it gave in each, by rank, in all of them.

    Raises:
        VtkError, OSError: what `action` raised in any process, raised in all: none waits for one that has failed.
    """
    outcome: tuple[list[T], VtkError | OSError | None]
    try:
        outcome = ([action()], None)
    except (VtkError, OSError) as error:
        outcome = ([], error)
    outcomes = world.gather(outcome)
    for _, failure in outcomes:
        if failure is not None:
            raise failure
    return [result for results, _ in outcomes for result in results]
