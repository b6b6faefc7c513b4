"""A run that is killed at any moment and made again comes to the same end as one that was not."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from tests.adapt.conftest import TINY, Vtk, bought
from vtk_cli import files
from vtk_cli.app import main

STEPWISE = (*TINY, "--checkpoint-seconds", "0")


class Killed(BaseException):
    """Stands for a process that ends at once."""


@pytest.fixture(scope="session")
def whole(first_round: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    place = tmp_path_factory.mktemp("whole")
    with contextlib.chdir(first_round):
        assert main(["adapt", "run", str(place / "r"), *STEPWISE, "-q", "--json"]) == 0
    return place / "r"


def ends_alike(run: Path, whole: Path) -> bool:
    """Whether the same labels were bought, by the same models, and all that was measured is the same."""
    questions = [json.loads((one / "rounds/02/query.json").read_text()) for one in (run, whole)]
    metrics = [(one / "metrics.jsonl").read_bytes() for one in (run, whole)]
    return bought(run) == bought(whole) and metrics[0] == metrics[1] and questions[0] == questions[1]


def published_files(monkeypatch: pytest.MonkeyPatch, most: int) -> list[Path]:
    """Kill this process's work in place of the write after `most` of them; the files that were written."""
    written: list[Path] = []
    publish = files.publish

    def counted(temporary: Path, path: Path) -> None:
        if len(written) >= most:
            raise Killed
        written.append(path)
        publish(temporary, path)

    monkeypatch.setattr(files, "publish", counted)
    return written


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(
    vtk: Vtk, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, kills = vtk.folder / "r", 0
    for most in [3, 9, 14, 17, 21, 26, 31, 11, 7, 38, 13]:
        with monkeypatch.context() as patched:
            published_files(patched, most)
            try:
                main(["adapt", "run", "r", *STEPWISE, "-q"])
            except Killed:
                kills += 1
            else:
                break
    assert kills >= 5
    assert vtk.done("run", "r", *STEPWISE)["phase"] == "done"
    assert ends_alike(run, whole)


@pytest.mark.slow
def test_each_verb_killed_at_any_write_can_be_made_again(
    started: Vtk, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vtk, run = started, started.folder / "r"
    verbs: list[list[object]] = []
    for _ in range(2):
        verbs += [["query", "r"], ["label", "r", "--oracle"], ["train", "r"]]
    for verb in verbs:
        phase = json.loads((run / "state.json").read_text())["phase"]
        for most in (0, 2, 5):
            with monkeypatch.context() as patched:
                published_files(patched, most)
                with contextlib.suppress(Killed):
                    main(["adapt", *map(str, verb), "-q"])
            if json.loads((run / "state.json").read_text())["phase"] != phase:
                break
        else:
            vtk.done(*verb)
    assert ends_alike(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("most", range(6))
def test_an_undo_killed_on_the_way_is_finished_by_the_next_verb(
    started: Vtk, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    vtk, run = started, started.folder / "r"
    before = json.loads((run / "state.json").read_text())
    first = vtk.done("query", "r")["asked"]
    vtk.done("label", "r", "--oracle")
    with monkeypatch.context() as patched:
        published_files(patched, most + 4)  # config, record and lock come first
        with contextlib.suppress(Killed):
            main(["adapt", "undo", "r", "-q"])
    if (run / "undo.json").exists() or json.loads((run / "state.json").read_text()) == before:
        assert vtk.done("query", "r")["asked"] == first
    else:
        assert vtk.done("undo", "r")["round"] == 0
    assert vtk.done("status", "r")["budget"]["used"] == 0
