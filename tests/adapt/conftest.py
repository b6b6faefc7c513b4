"""`vtk adapt` as a user runs it, in this process, on a few tiny images."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.adapt.drawn_domains import class_tree
from tests.command_line import Said
from vtk_cli.adapt.run_files import RunFiles, load_run
from vtk_cli.adapt.state import check_invariants
from vtk_cli.app import main

CLASSES = ("bike", "cup", "pen")
TINY = (
    "--source", "source", "--target", "target", "--preset", "digits", "--size", "16", "--source-epochs", "1",
    "--holdout", "0", "--rounds", "2", "--budget", "6", "--stage1-steps", "2", "--stage2-steps", "3", "--pl-refresh",
    "2", "--batch", "8", "--joint-steps", "2", "--device", "cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Vtk:
    """`vtk adapt` in a folder that has two domains, `source` and `target`: 3 classes, 4 and 5 images each."""

    folder: Path
    heard: Callable[[], Any]

    def __call__(self, *arguments: object) -> Said:
        """Run `vtk adapt ARGUMENTS`."""
        self.heard()
        code = main(["adapt", *map(str, arguments)])
        said = self.heard()
        return Said(code, said.out, said.err)

    def done(self, *arguments: object) -> dict[str, Any]:
        """Run it with `--json`; what it says, after a look at what is always true of a run."""
        found = self(*arguments, "--json", "-q").object
        if "run" in found:
            files = RunFiles(Path(found["run"]))
            state, rows = load_run(files)
            check_invariants(state, rows, pool_of(files.folder))
        return found

    def answered(self, run: str, labels: Mapping[str, str] | None = None, name: str = "labels.csv") -> Path:
        """A file that answers the open round, truthfully but for `labels`."""
        asked = json.loads((self.folder / run / "state.json").read_text())["history"][-1]["asked"]
        said = {one: one.partition("/")[0] for one in asked} | dict(labels or {})
        lines = [f"{one},{label}" for one, label in said.items()]
        (self.folder / name).write_text("\n".join(["sample_id,label", *lines]) + "\n")
        return self.folder / name


def pool_of(run: Path) -> tuple[str, ...]:
    """The sample ids of a run's manifest."""
    return tuple(row["sample_id"] for row in csv.DictReader((run / "manifest.csv").open()))


def bought(run: Path) -> list[tuple[str, str, str]]:
    """Id, label and round of every row of the ledger."""
    return [(row["sample_id"], row["label"], row["round"]) for row in csv.DictReader((run / "labels.csv").open())]


@pytest.fixture
def vtk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vtk:
    """`vtk adapt` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    class_tree(tmp_path / "source", CLASSES, 4)
    class_tree(tmp_path / "target", CLASSES, 5)
    return Vtk(tmp_path, capsys.readouterr)


@pytest.fixture(scope="session")
def first_round(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two domains and a run `r` after round 0, to be copied."""
    folder = tmp_path_factory.mktemp("first")
    class_tree(folder / "source", CLASSES, 4)
    class_tree(folder / "target", CLASSES, 5)
    with contextlib.chdir(folder):
        assert main(["adapt", "start", "r", *TINY, "-q", "--json"]) == 0
    return folder


@pytest.fixture
def started(vtk: Vtk, first_round: Path) -> Vtk:
    """The same with a run `r` after round 0."""
    shutil.copytree(first_round / "r", vtk.folder / "r")
    return vtk
