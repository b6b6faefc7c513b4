"""Results of independent pieces of work, each kept under a key made of everything that shaped it.

Any number of processes may work on one set of pieces, in any order, and be killed at any moment: a result is whole or
absent, a piece is locked while somebody computes it, and nothing is computed twice (`turns.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vtk_cli.engine.pieces.turns import WHOLE, Share, in_turns
from vtk_cli.engine.signals import StopRequest
from vtk_cli.files import disk_errors, lock, read_sealed, write_sealed

Piece = TypeVar("Piece")
Result = dict[str, Any]


def sealed_result(path: Path) -> Result | None:
    """The result in a file of `write_sealed`; None where there is none or the file is torn, which is removed."""
    result = read_sealed(path)
    if result is None:
        with disk_errors(path):
            if path.exists():
                path.unlink(missing_ok=True)
    return result


@dataclass(frozen=True)
class ResultStore:
    """A folder of finished results; any file in it may be deleted.

    Args:
        folder: where; made when first written to.
    """

    folder: Path

    def get(self, key: str) -> Result | None:
        """The result under `key`; None where there is none or its file is torn or was changed, which is removed."""
        return sealed_result(self._path(key))

    def put(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a result: plain JSON values, without NaN."""
        write_sealed(self._path(key), result)

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
    share: Share = WHOLE,
    name: Callable[[Piece], str] = str,
    heard: Callable[[Piece, Result], None] = lambda _piece, _result: None,
    sound: Callable[[Piece, Result], bool] = lambda _piece, _result: True,
) -> list[Result]:
    """The results of all pieces: those in the store, those computed here, and those other processes compute meanwhile.

    Args:
        pieces: in their own order.
        key: of a piece.
        compute: its result.
        store: where results are found and kept.
        stop: obeyed between two pieces.
        kept: what is kept when it is, for messages: `finished searches`.
        share: with which pieces to begin, and whether to compute any.
        name: of a piece, for messages.
        heard: told of each result as it is there.
        sound: whether what the store holds of a piece is its result; what is not is made anew.

    Returns:
        The results, in the order of the pieces.

    Raises:
        UserError: the share makes nothing, and results are missing.
        Preempted, KeyboardInterrupt: a signal came.
    """

    def found(piece: tuple[Piece, str]) -> Result | None:
        result = store.get(piece[1])
        return result if result is not None and sound(piece[0], result) else None

    def made(piece: tuple[Piece, str]) -> Result:
        with store.working_on(piece[1]):
            result = found(piece)  # another process may have been quicker
            if result is None:
                result = compute(piece[0])
                store.put(piece[1], result)
            return result

    return in_turns(
        [(piece, key(piece)) for piece in pieces],
        found=found,
        make=made,
        share=share,
        check=lambda: stop.raise_if_requested(kept),
        heard=lambda piece, result: heard(piece[0], result),
        name=lambda piece: name(piece[0]),
        what=kept.removeprefix("finished "),
    )
