"""The last piece: one of the tasks assembles, and again only where what was assembled is gone or replaced."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path

import pytest

from vtk_cli.engine.pieces.assembly import Assembled, assembled_once
from vtk_cli.engine.signals import StopRequest
from vtk_cli.errors import UserError

ABOUT = {"command": "prune sweep", "pieces": ["a", "b"]}


def _assembled(folder: Path, task: str, about: dict[str, object] | None = None) -> Assembled:
    def assemble() -> Path:
        file = folder / "summary.json"
        with (folder / "log").open("a") as log:
            log.write(f"{task}\n")
        file.write_text('{"the": "same"}')
        return file

    return assembled_once(folder / "store", about or ABOUT, assemble, task=task, stop=StopRequest())


def test_who_comes_later_is_told_by_whom(tmp_path: Path) -> None:
    first, second = _assembled(tmp_path, "1/2"), _assembled(tmp_path, "0/2")
    assert (first.here, second.here) == (True, False)
    assert first.by == second.by
    assert second.by.startswith("task 1/2 (process ")
    assert first.file == second.file == tmp_path / "summary.json"


@pytest.mark.parametrize("content", [None, "another analysis of the same pieces"])
def test_what_is_gone_or_replaced_is_assembled_again(tmp_path: Path, content: str | None) -> None:
    _assembled(tmp_path, "0/2")
    if content is None:
        (tmp_path / "summary.json").unlink()
    else:
        (tmp_path / "summary.json").write_text(content)
    assert _assembled(tmp_path, "1/2").here


def test_other_pieces_or_options_are_another_result(tmp_path: Path) -> None:
    _assembled(tmp_path, "0/2")
    assert _assembled(tmp_path, "0/2", {**ABOUT, "pieces": ["a", "c"]}).here


def test_an_error_is_everybodys_and_leaves_no_lock(tmp_path: Path) -> None:
    def fails() -> Path:
        raise UserError("two networks have nothing in common")

    for _ in range(2):
        with pytest.raises(UserError, match="nothing in common"):
            assembled_once(tmp_path, ABOUT, fails, task="0/2", stop=StopRequest())
    assert _assembled(tmp_path, "1/2").here


def test_of_processes_at_the_same_time_exactly_one_assembles(tmp_path: Path) -> None:
    context = get_context("fork")
    tasks = [context.Process(target=_assembled, args=(tmp_path, f"{number}/4")) for number in range(4)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert [task.exitcode for task in tasks] == [0] * 4
    assert len((tmp_path / "log").read_text().split()) == 1
