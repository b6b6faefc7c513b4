"""Disks that are full or may not be written: a line that names the path, nothing lost, and the same command goes on."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cases import held
from tests.faults.forks import Forks
from tests.faults.trainings import TRAININGS, differing, leftovers
from tests.prune.conftest import TINY
from vtk_cli.console import Console
from vtk_cli.engine.checkpoint import latest_checkpoint

pytestmark = pytest.mark.slow

WRITES = {
    "checkpoints": ("checkpoint", 3),
    "metrics.jsonl": ("metrics", 2),
    "log.txt": ("log", 2),
    "config.toml": ("configuration", 1),
    "run.json": ("record", 1),
    "best.safetensors": ("best weights", 2),
    "model.safetensors": ("weights", 1),
    r"plots/.*\.png": ("plots", 2),
    "report.html": ("report", 1),
    "summary.json": ("result", 1),
}
"""How a path ends -> what it is, and which of its writes does not succeed."""


@pytest.fixture(scope="module")
def alone(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `vtk train` that was left alone."""
    folder = tmp_path_factory.mktemp("alone")
    assert forks.run(*TRAININGS["train"].command(folder / "run", folder)).code == 0
    return folder / "run"


def test_wherever_the_disk_is_full_the_line_names_the_path_and_the_command_goes_on_later(
    forks: Forks, alone: Path, tmp_path: Path
) -> None:
    """One run after another, each of which gets as far as one more kind of file; then there is space."""
    words, run, log = TRAININGS["train"].command(tmp_path / "run", tmp_path), tmp_path / "run", tmp_path / "full.txt"
    saved = -1
    for pattern, (what, number) in WRITES.items():
        log.unlink(missing_ok=True)
        said = forks.run(*words, hooks=[("save_often",), ("no_space_for", pattern, number, log)])
        assert log.exists(), f"{pattern} is not written so often"
        assert said.code == 1
        (line,) = said.err.splitlines()
        assert line.startswith(f"error: {log.read_text()}: no space left to write; free some space")
        found = latest_checkpoint(run / "checkpoints", Console(quiet=True))
        assert saved <= (saved := -1 if found is None else found[0])
        held(
            "faults",
            f"a full disk at the write of the {what}",
            "exit 1; the line names the path; later the command ends",
        )
    assert saved > 0
    assert forks.run(*words).code == 0
    assert not differing(alone, run)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("name", "seed"),
    [pytest.param(name, seed, id=f"{name}-seed-{seed}") for seed, name in enumerate(TRAININGS) if name != "train"],
)
def test_a_disk_that_is_full_at_any_write_costs_no_result(
    name: str, seed: int, forks: Forks, data_of: Callable[[str], Path], tmp_path: Path
) -> None:
    data, log = data_of(name), tmp_path / "full.txt"
    words, draw = TRAININGS[name].command(tmp_path / "run", data), random.Random(seed)  # noqa: S311
    assert forks.run(*TRAININGS[name].command(tmp_path / "alone", data), folder=data).code == 0
    for most in (30, 90):
        log.unlink(missing_ok=True)
        hooks = [("save_often",), ("no_space_for", f"{tmp_path}/run.*", draw.randint(3, most), log)]
        said = forks.run(*words, hooks=hooks, folder=data)
        assert said.code == (1 if log.exists() else 0), said.err
        if log.exists():
            assert said.failure.startswith(f"error: {log.read_text()}: no space left to write"), said.err
            held(
                "faults", f"a full disk at random writes of `vtk {name}`", "exit 1; later the same command ends as ever"
            )
    said = forks.run(*words, folder=data)
    assert said.code == 0, said.err
    assert not differing(tmp_path / "alone", tmp_path / "run")
    assert not leftovers(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2.2 MB: room for a checkpoint of `vtk train`, not for two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=2200k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_that_is_full_keeps_the_checkpoint_and_with_more_space_the_run_ends(
    small_disk: Path, forks: Forks, alone: Path, tmp_path: Path
) -> None:
    words = TRAININGS["train"].command(small_disk / "run", tmp_path)
    checkpoints = small_disk / "run" / "checkpoints"
    said = forks.run(*words, hooks=[("save_often",)])
    assert said.failure.startswith(f"error: {checkpoints}: no space left to write; free some space")
    found = latest_checkpoint(checkpoints, Console(quiet=True))
    assert found is not None
    assert found[0] >= 1
    assert not leftovers(small_disk)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert forks.run(*words).code == 0
    assert not differing(alone, small_disk / "run")
    assert not leftovers(small_disk)
    held("faults", "a real full file system (tmpfs of 2.2 MB), then a larger one", "exit 1, then the same bits as ever")


@pytest.mark.parametrize("name", TRAININGS)
def test_an_output_folder_that_may_not_be_written_is_refused(
    name: str, forks: Forks, data_of: Callable[[str], Path], read_only_folder: Path
) -> None:
    out = read_only_folder / "run"
    said = forks.run(*TRAININGS[name].command(out, data_of(name)), folder=data_of(name))
    assert str(read_only_folder) in said.complaint
    assert not list(read_only_folder.iterdir())
    held("faults", "read-only output folder of every training", "exit 2; the line names the folder; nothing is written")


@pytest.mark.parametrize(
    "words",
    [
        ("prune", "run", *TINY),
        ("prune", "sweep", *TINY, "--keeps", "0.5"),
        ("prune", "sweep", *TINY, "--keeps", "0.5", "--shard", "0/2"),
        ("similarity", "resnet18", "resnet34", "--quick", "--shard", "0/2"),
    ],
    ids=" ".join,
)
def test_an_output_folder_that_may_not_be_written_is_refused_before_anything_is_trained(
    words: tuple[str, ...], forks: Forks, read_only_folder: Path, tmp_path: Path
) -> None:
    said = forks.run(*words, "--out", read_only_folder / "run", "--quiet", cache=tmp_path / "cache")
    assert str(read_only_folder) in said.complaint
    assert not (tmp_path / "cache").exists()
    held("faults", "read-only output folder where networks are trained first", "exit 2 before the first training")


@pytest.mark.parametrize("name", ["train", "detect train"])
def test_without_a_cache_that_can_be_written_the_line_names_it_or_nothing_is_missing(
    name: str, forks: Forks, data_of: Callable[[str], Path], read_only_folder: Path, tmp_path: Path
) -> None:
    words = TRAININGS[name].command(tmp_path / "run", data_of(name))
    said = forks.run(*words, folder=data_of(name), cache=read_only_folder)
    if said.code:
        assert str(read_only_folder) in said.complaint
    assert not list(read_only_folder.iterdir())
    held("faults", "read-only cache", "exit 2 and a line that names it, or done without it")
