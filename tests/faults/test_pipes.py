"""Readers that have read enough, and outputs that are closed: no traceback, nothing harmed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases import held
from tests.faults.forks import Fork, Forks
from tests.faults.trainings import TRAININGS

pytestmark = pytest.mark.slow

CPU = ("--device", "cpu")
TABLES: dict[str, tuple[str, ...]] = {
    "--help": ("--help",),
    "data list": ("data", "list"),
    "data check": ("data", "check", "digits"),
    "doctor": ("doctor",),
    "runs list": ("runs", "list", "."),
    "runs show": ("runs", "show", "TRAINED"),
    "search spaces": ("search", "spaces"),
    "search show": ("search", "show", "2 0 3", "--space", "digits-mini"),
    "video-pretrain models": ("video-pretrain", "models"),
    "similarity --dry-run": ("similarity", "resnet18", "resnet34", "--dry-run", *CPU),
    "train --dry-run": ("train", "--dry-run", *CPU),
    "train eval": ("train", "eval", "TRAINED", *CPU),
    "prune run --dry-run": ("prune", "run", "--dry-run", *CPU),
    "search run --dry-run": ("search", "run", "--dry-run", *CPU),
    "adapt run --dry-run": ("adapt", "run", "RUN", "--dry-run", *CPU),
    "bench": ("bench", "search", "--smallest", *CPU),
}


@pytest.fixture(scope="module")
def trained(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `vtk train`."""
    root = tmp_path_factory.mktemp("trained")
    assert forks.run(*TRAININGS["train"].command(root / "run", root)).code == 0
    return root / "run"


@pytest.fixture
def read_in_part(forks: Forks, tmp_path: Path) -> Callable[..., Fork]:
    """Starts a command whose reader has gone before the first line comes."""

    def start(*command: object) -> Fork:
        reading, writing = os.pipe()
        fork = forks.start(
            *command,
            stdout=writing,
            hooks=[("touch", tmp_path / "begun"), ("wait_for", tmp_path / "go")],
            folder=tmp_path,
        )
        fork.wait_until(tmp_path / "begun")
        os.close(reading)
        os.close(writing)
        (tmp_path / "go").touch()
        return fork

    return start


@pytest.mark.parametrize("name", TABLES)
def test_a_reader_that_has_read_enough_and_a_closed_output_are_no_traceback(
    forks: Forks, trained: Path, tmp_path: Path, read_in_part: Callable[..., Fork], name: str
) -> None:
    words = [str(trained) if word == "TRAINED" else word for word in TABLES[name]]
    unread = read_in_part(*words).end()
    assert (unread.code, [line for line in unread.err.splitlines() if "rror" in line]) == (int(name == "--help"), [])
    closed = forks.run(*words, stdout=-1, folder=tmp_path)
    assert (closed.code, closed.out) == (0, "")
    assert "Traceback" not in closed.err
    assert "error" not in closed.err
    held(
        "faults",
        "stdout is a pipe that nobody reads any more: `vtk ... | head`",
        "exit 0 (help: 1), no message",
    )
    held("faults", "stdout is closed: `vtk ... >&-`", "exit 0, no message")


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_whose_reader_has_gone_is_done(
    data_of: Callable[[str], Path], tmp_path: Path, read_in_part: Callable[..., Fork], name: str
) -> None:
    data, out = data_of(name), tmp_path / "run"
    words = [str(data) if word == "." else word for word in TRAININGS[name].command(out, data)]
    words = [str(data / word) if word in {"source", "target"} else word for word in words]
    said = read_in_part(*words).end()
    assert said.code == 0, said.err
    assert "error" not in said.err
    assert json.loads((out / "run.json").read_text())["status"] == "done"
    assert (out / "summary.json").exists()
    held("faults", "a training's stdout is read by nobody any more", "exit 0, no traceback; the run is done and whole")
