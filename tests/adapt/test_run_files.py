from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vtk_cli.adapt.ledger import LabelRow
from vtk_cli.adapt.run_files import (
    RunFiles,
    append_rows,
    held,
    load_run,
    read_classes,
    read_rows,
    save_state,
    write_classes,
)
from vtk_cli.adapt.scoreboard import read_metrics
from vtk_cli.adapt.state import ask, new_state, source_ready, trained
from vtk_cli.errors import UserError

POOL = tuple(f"{number:02d}" for number in range(9))
ROWS = (
    LabelRow('a, "b".png', "real cat", 1, "human", "2024-01-01T00:00:00+00:00"),
    LabelRow("é.png", ":bad", 1, "oracle", "now"),
    LabelRow("", "", 1, "undo", "now"),
)


def test_rows_are_only_ever_added(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    assert read_rows(path) == ()
    append_rows(path, ROWS[:1])
    before = path.read_bytes()
    append_rows(path, ())
    assert path.read_bytes() == before
    append_rows(path, ROWS[1:])
    assert path.read_bytes().startswith(before)
    assert read_rows(path) == ROWS
    assert before.splitlines()[0] == b"sample_id,label,round,origin,time"


@pytest.mark.parametrize("line", ["a.png,cat,one,human,now", "a.png,cat,1,nobody,now", "a.png,cat"])
def test_a_damaged_ledger_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    append_rows(tmp_path / "labels.csv", ROWS[:1])
    with (tmp_path / "labels.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"labels\.csv:3: is no row of labels"):
        read_rows(tmp_path / "labels.csv")


@pytest.mark.parametrize("content", [b"\xff\xfe,1\n", b'"' + b"x" * 200_000 + b'",1\n'])
def test_a_ledger_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    append_rows(tmp_path / "labels.csv", ROWS[:1])
    with (tmp_path / "labels.csv").open("ab") as file:
        file.write(content)
    with pytest.raises(UserError, match=r"labels\.csv:\d: is no row of labels"):
        read_rows(tmp_path / "labels.csv")


def test_damaged_metrics_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"round": 0}\n{"rou')
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read"):
        read_metrics(RunFiles(tmp_path))


def test_a_run_that_was_stopped_between_its_files_goes_on(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    state = new_state(total=4, rounds=2, strategy="loss", recipe="sequential", seed=0, manifest_sha1="")
    state = ask(trained(source_ready(state, "s"), (), POOL, "m"), (), POOL, POOL[:2], "loss")
    save_state(files, state)
    assert load_run(files) == (state, ())
    rows = tuple(LabelRow(name, "cat", 1, "human", "now") for name in POOL[:2])
    append_rows(files.labels, rows)  # and the state was not written
    found, listed = load_run(files)
    assert listed == rows
    assert found == replace(state, phase="await_train", budget=replace(state.budget, used=2, pending=0))


def test_a_folder_that_is_no_run_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="begin with vtk adapt start"):
        load_run(RunFiles(tmp_path))
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state\.json: cannot be read"):
        load_run(RunFiles(tmp_path))


def test_class_names_survive_their_file(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    write_classes(files, ("real cat", "é"))
    assert read_classes(files) == ("real cat", "é")
    files.classes.write_text("{}")
    with pytest.raises(UserError, match="is no list of class names"):
        read_classes(files)


def test_the_files_of_a_run_have_their_places(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    assert files.relative(files.model(3)) == "ckpt/round_03.pt"
    assert files.relative(files.model(None)) == "ckpt/source.pt"
    assert files.relative(files.round(1)) == "rounds/01"


def test_a_run_in_use_names_the_process_that_holds_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from vtk_cli.adapt.run_files import RunFiles, held\n"
        "with held(RunFiles(Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by another process \(process {other.pid} on .* since 20"):
            held(RunFiles(tmp_path)).__enter__()
        other.communicate("")
    with held(RunFiles(tmp_path)):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock.json").exists()
