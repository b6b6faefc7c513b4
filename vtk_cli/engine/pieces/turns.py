"""Independent pieces of work, shared by any number of processes: the rules of taking turns, said once.

A process does the pieces of its own share first, then any piece that nobody works on, and stays until all are there;
so a killed process's pieces are done by the others, and it does not matter who starts when. Whoever works on a piece
holds a lock on it (`files.lock`), which the system takes back when the process ends, however it ends: the piece is free
at once. Nothing is made twice.

The processes meet in a folder. On one that many machines share the locks must reach them all: `flock` does so on NFS
(Linux 2.6.12 and later, unless mounted with `nolock` or `local_lock`), Lustre (mounted with `flock`), GPFS and CephFS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vtk_cli.errors import UserError
from vtk_cli.files import Busy

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _SLOWER = 0.1, 5.0, 1.3
"""How often others' pieces are looked for: seldom where pieces take long, for hundreds of processes do so at once."""
_NAMED = 5


@dataclass(frozen=True)
class Share:
    """Which pieces a process begins with: `index`, `index + count`, `index + 2 count` ...

    Args:
        index, count: 0 <= index < count; there may be more shares than pieces.
        makes: whether it makes what is missing; otherwise what is missing is an error, which names it.
    """

    index: int = 0
    count: int = 1
    makes: bool = True

    def order(self, pieces: int) -> list[int]:
        """All pieces: those of the share, then the others, from its first one on and round."""
        own = range(self.index, pieces, self.count)
        start = self.index % max(pieces, 1)
        others = [*range(start, pieces), *range(start)]
        return list(dict.fromkeys([*own, *others]))


WHOLE = Share()
"""All pieces from the first on, as a process by itself takes them."""


def no_stop() -> None:
    """Never stops."""


def in_turns(
    pieces: Sequence[Piece],
    *,
    found: Callable[[Piece], Result | None],
    make: Callable[[Piece], Result],
    share: Share = WHOLE,
    check: Callable[[], None] = no_stop,
    heard: Callable[[Piece, Result], None] = lambda _piece, _result: None,
    name: Callable[[Piece], str] = str,
    what: str = "pieces",
) -> list[Result]:
    """The results of all pieces: found, made here, or made by other processes meanwhile.

    Args:
        pieces: in their own order.
        found: the result of a piece; None where there is none.
        make: makes it and keeps it where `found` finds it; takes the piece's lock, looks once more, and raises `Busy`
            where another process holds it.
        share: with which pieces to begin, and whether to make any.
        check: called between two pieces; raises when the process is asked to stop.
        heard: told of each result as it is there.
        name: of a piece, for messages.
        what: they are, in the plural.

    Returns:
        The results, in the order of the pieces.

    Raises:
        UserError: the share makes nothing, and pieces are missing.
        Preempted, KeyboardInterrupt: from `check`; what is finished is kept.
    """
    results: dict[int, Result] = {}
    order, pause = share.order(len(pieces)), _FIRST_PAUSE_S
    while len(results) < len(pieces):
        before = len(results)
        for number in [number for number in order if number not in results]:
            check()
            result = found(pieces[number])
            if result is None and share.makes:
                try:
                    result = make(pieces[number])
                except Busy:
                    continue
            if result is not None:
                results[number] = result
                heard(pieces[number], result)
        if not share.makes:
            _require_all([name(piece) for number, piece in enumerate(pieces) if number not in results], pieces, what)
        if len(results) == before:
            time.sleep(pause)
            pause = min(_SLOWER * pause, _LONGEST_PAUSE_S)
        else:
            pause = _FIRST_PAUSE_S
    return [results[number] for number in range(len(pieces))]


def _require_all(missing: Sequence[str], pieces: Sequence[object], what: str) -> None:
    if missing:
        listed = ", ".join(missing[:_NAMED]) + (" ..." if len(missing) > _NAMED else "")
        said = f"{len(missing):,} of {len(pieces):,} {what} are missing: {listed}"
        raise UserError(said, "--merge", "run their shards first")
