"""Results of trainings that can be interrupted: a folder a piece, in which it also keeps what it takes to go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vtk_cli.engine.pieces.results import Result, sealed_result
from vtk_cli.engine.pieces.turns import WHOLE, Share, in_turns
from vtk_cli.engine.signals import stop_requests
from vtk_cli.files import lock, make_folder, write_sealed

Piece = TypeVar("Piece")

RESULT = "result.json"
_LOCK, _UNFINISHED = ".lock", "checkpoints"


@dataclass(frozen=True)
class ResultFolders:
    """The folders of finished and unfinished pieces; any of them may be deleted.

    Args:
        folder: of all; made when first written to.
    """

    folder: Path

    def place(self, key: str) -> Path:
        """The folder of a piece, which may not be there."""
        return self.folder / key

    def get(self, key: str) -> Result | None:
        """The result under `key`; None where there is none or its file is torn or was changed, which is removed."""
        return sealed_result(self.place(key) / RESULT)

    def through(
        self,
        pieces: Sequence[Piece],
        *,
        key: Callable[[Piece], str],
        compute: Callable[[Piece, Path], Result],
        share: Share = WHOLE,
        name: Callable[[Piece], str] = str,
    ) -> list[Result]:
        """The results of all pieces: found, computed here, or by other processes meanwhile; see `in_turns`.

        Args:
            pieces: in their own order.
            key: of a piece.
            compute: its result, from where it was stopped if it was: that is kept in the folder it is given, in
                `checkpoints/`, which is removed at the end.
            share: with which pieces to begin, and whether to compute any.
            name: of a piece, for messages.

        Raises:
            UserError: the share makes nothing, and results are missing.
            Preempted, KeyboardInterrupt: a signal came; what is finished is kept.
        """

        def made(piece: tuple[Piece, str]) -> Result:
            place = self.place(piece[1])
            make_folder(place)
            with lock(place / _LOCK, wait=False, busy="another process is at work on this"):
                result = self.get(piece[1])  # another process may have been quicker
                if result is None:
                    result = compute(piece[0], place)
                    write_sealed(place / RESULT, result)
                    shutil.rmtree(place / _UNFINISHED, ignore_errors=True)
                return result

        with stop_requests() as stop:
            return in_turns(
                [(piece, key(piece)) for piece in pieces],
                found=lambda piece: self.get(piece[1]),
                make=made,
                share=share,
                check=lambda: stop.raise_if_requested("finished trainings"),
                name=lambda piece: name(piece[0]),
                what="trainings",
            )
