"""Results of independent pieces of work, each kept under a key made of everything that shaped it.

Any number of processes may work on one set of pieces, in any order, and be killed at any moment: a result is whole or
absent, a piece is locked while somebody computes it, and nothing is computed twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vtk_cli.engine.signals import StopRequest
from vtk_cli.files import Busy, disk_errors, lock, write_json

Piece = TypeVar("Piece")
Result = dict[str, Any]

_LOOK_AGAIN_S = 0.2
"""How often the results of other processes are looked for."""


@dataclass(frozen=True)
class ResultStore:
    """A folder of finished results; any file in it may be deleted.

    Args:
        folder: where; made when first written to.
    """

    folder: Path

    def get(self, key: str) -> Result | None:
        """The result under `key`; None where there is none or its file is torn, which is removed."""
        path = self._path(key)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            found = None
        if isinstance(found, dict):
            return found
        with disk_errors(path):
            path.unlink(missing_ok=True)
        return None

    def put(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a result: plain JSON values, without NaN."""
        write_json(self._path(key), dict(result))

    @contextmanager
    def working_on(self, key: str) -> Iterator[None]:
        """Hold the piece `key` against other processes.

        Raises:
            Busy: one of them has it.
        """
        path = self.folder / "locks" / key
        with lock(path, wait=False, busy="another process is at work on this"):
            try:
                yield
            finally:  # whoever has this very file open, or makes a new one, looks for the result first
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def work_through(
    pieces: Sequence[Piece],
    *,
    key: Callable[[Piece], str],
    compute: Callable[[Piece], Result],
    store: ResultStore,
    stop: StopRequest,
    kept: str,
    heard: Callable[[Piece, Result], None] = lambda _piece, _result: None,
    sound: Callable[[Piece, Result], bool] = lambda _piece, _result: True,
) -> list[Result]:
    """The results of all pieces: those in the store, those computed here, and those other processes compute meanwhile.

    Args:
        pieces: in the order in which to take them.
        key: of a piece.
        compute: its result.
        store: where results are found and kept.
        stop: obeyed between two pieces.
        kept: what is kept when it is, for the message.
        heard: told of each result as it is there.
        sound: whether what the store holds of a piece is its result; what is not is made anew.

    Returns:
        The results, in the order of the pieces.

    Raises:
        Preempted, KeyboardInterrupt: a signal came.
    """
    keys = [key(piece) for piece in pieces]
    results: dict[int, Result] = {}
    while len(results) < len(pieces):
        before = len(results)
        for number, piece in enumerate(pieces):
            if number in results:
                continue
            stop.raise_if_requested(kept)
            result = _found_or_computed(keys[number], piece, compute, store, sound=sound)
            if result is not None:
                results[number] = result
                heard(piece, result)
        if len(results) == before:
            time.sleep(_LOOK_AGAIN_S)
    return [results[number] for number in range(len(pieces))]


def _found_or_computed(
    key: str,
    piece: Piece,
    compute: Callable[[Piece], Result],
    store: ResultStore,
    *,
    sound: Callable[[Piece, Result], bool],
) -> Result | None:
    """None while another process is at work on it."""
    if (found := store.get(key)) is not None and sound(piece, found):
        return found
    with suppress(Busy), store.working_on(key):
        found = store.get(key)
        if found is None or not sound(piece, found):
            found = compute(piece)
            store.put(key, found)
        return found
    return None
