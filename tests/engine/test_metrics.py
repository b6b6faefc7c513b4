"""`metrics.jsonl` holds the rows and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtk_cli.engine.metrics import MetricsLog
from vtk_cli.errors import UserError


def test_the_file_holds_a_json_object_a_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "a" / "metrics.jsonl")
    log.replace([])
    log.append({"epoch": 1, "loss": 0.1})
    log.append({"epoch": 2, "loss": float("nan"), "lr": float("inf")})
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == log.rows
    assert log.rows == [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": None, "lr": None}]


def test_replacing_the_rows_cuts_off_what_the_file_holds_beyond_also_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    MetricsLog(path).replace([{"epoch": 1}])
    assert path.read_text() == '{"epoch": 1}\n'


def test_without_a_file_the_rows_are_kept(tmp_path: Path) -> None:
    log = MetricsLog(None)
    log.replace([{"epoch": 1}])
    log.append({"epoch": 2})
    assert log.rows == [{"epoch": 1}, {"epoch": 2}]


def test_a_file_that_may_not_be_written_is_the_users_mistake(read_only_folder: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        MetricsLog(read_only_folder / "metrics.jsonl").replace([])
