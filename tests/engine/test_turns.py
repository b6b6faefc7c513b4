"""Turns: whose pieces come first, that all are done once, and that nobody's death keeps a piece from being done."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest

from vtk_cli.engine.pieces.result_folders import ResultFolders
from vtk_cli.engine.pieces.results import ResultStore, work_through
from vtk_cli.engine.pieces.turns import Share, in_turns
from vtk_cli.engine.signals import StopRequest
from vtk_cli.errors import UserError
from vtk_cli.files import Busy


@pytest.mark.parametrize(
    ("share", "order"),
    [
        (Share(), [0, 1, 2, 3, 4, 5, 6]),
        (Share(1, 3), [1, 4, 2, 3, 5, 6, 0]),
        (Share(2, 3), [2, 5, 3, 4, 6, 0, 1]),
        (Share(9, 12), [2, 3, 4, 5, 6, 0, 1]),
    ],
)
def test_a_share_comes_first_and_every_piece_once(share: Share, order: list[int]) -> None:
    assert share.order(7) == order
    assert share.order(0) == []


def test_the_first_pieces_of_all_shares_are_different_while_there_are_enough() -> None:
    assert sorted(Share(index, 5).order(8)[0] for index in range(5)) == [0, 1, 2, 3, 4]
    owned = [piece for index in range(5) for piece in Share(index, 5).order(8)[: len(range(index, 8, 5))]]
    assert sorted(owned) == list(range(8))


def test_what_others_hold_is_passed_over_and_looked_for_again() -> None:
    held, tried = {0: 2, 1: 1}, []

    def make(piece: int) -> int:
        tried.append(piece)
        if held.get(piece, 0) > 0:
            held[piece] -= 1
            raise Busy("at work")
        return 10 * piece

    heard: list[int] = []
    found = in_turns(range(3), found=lambda _: None, make=make, heard=lambda piece, _: heard.append(piece))
    assert found == [0, 10, 20]
    assert heard == [2, 1, 0]
    assert tried == [0, 1, 2, 0, 1, 0]


def test_a_share_that_makes_nothing_names_what_is_missing() -> None:
    def missing(pieces: list[str]) -> str:
        with pytest.raises(UserError) as error:
            in_turns(pieces, found=lambda piece: piece == "a" or None, make=str, share=Share(makes=False), what="rows")
        return str(error.value)

    assert "2 of 3 rows are missing: b, c; run their shards first" in missing(["a", "b", "c"])
    assert "7 of 7 rows are missing: b, c, d, e, f ...;" in missing([*"bcdefgh"])
    assert in_turns(["a"], found=lambda _: 1, make=int, share=Share(makes=False)) == [1]


def _killed_at_work(folder: Path) -> None:
    def compute(_: int) -> dict[str, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    work_through([1], key=str, compute=compute, store=ResultStore(folder), stop=StopRequest(), kept="pieces")


def test_a_piece_whose_holder_was_killed_is_free_at_once(tmp_path: Path) -> None:
    killed = get_context("fork").Process(target=_killed_at_work, args=(tmp_path,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert (tmp_path / "locks" / "1").exists()
    with ResultStore(tmp_path).working_on("1"):
        pass


def test_a_folder_keeps_what_it_takes_to_go_on_until_its_result_is_there(tmp_path: Path) -> None:
    folders, begun = ResultFolders(tmp_path / "of-all"), []

    def compute(piece: str, folder: Path) -> dict[str, str]:
        begun.append((folder / "checkpoints/state").exists())
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints/state").write_text(piece)
        if len(begun) == 1:
            raise KeyboardInterrupt
        return {"is": piece}

    def through(pieces: list[str]) -> list[dict[str, str]]:
        return folders.through(pieces, key=lambda piece: f"key-{piece}", compute=compute)

    with pytest.raises(KeyboardInterrupt):
        through(["a", "b"])
    assert through(["a", "b"]) == [{"is": "a"}, {"is": "b"}] == through(["a", "b"])
    assert begun == [False, True, False]
    assert not (folders.place("key-a") / "checkpoints").exists()


@pytest.mark.parametrize("torn", ["", "{", "[1]", "\x00"])
def test_a_torn_result_in_a_folder_is_made_anew(tmp_path: Path, torn: str) -> None:
    folders = ResultFolders(tmp_path)
    for value in (1, 2):
        found = folders.through(["a"], key=str, compute=lambda _piece, _folder, value=value: {"value": value})
        assert found == [{"value": value}]
        (tmp_path / "a" / "result.json").write_text(torn)
    assert folders.get("a") is None
