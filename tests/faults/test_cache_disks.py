"""A cache on a full disk: a line that names the path, nothing torn, and with more space the result of ever."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cases import held
from tests.faults.forks import Forks
from tests.faults.trainings import leftovers
from tests.prune.conftest import TINY
from vtk_cli.engine.pieces.result_folders import ResultFolders
from vtk_cli.errors import JobError
from vtk_cli.files import atomic_path

SEEDS = ("--seeds", "0", "--device", "cpu")


@dataclass(frozen=True)
class Work:
    """A command that keeps what it makes in the cache.

    Args:
        words: the command after `vtk`; OUT is its output folder.
        writes: how a path in the cache ends -> what it is, and which of its writes does not succeed.
        results: the files of the output folder that say nothing about when and how fast.
    """

    words: tuple[str, ...]
    writes: dict[str, tuple[str, int]]
    results: tuple[str, ...]


WORKS = {
    "similarity": Work(
        ("similarity", "resnet18", "resnet34", "--quick", "--epochs", "1", "--images", "32", "--out", "OUT", "--quiet"),
        {
            "digits-networks/.*/lock": ("lock of a digits network", 1),
            "digits-networks/.*/model.safetensors": ("weights of a digits network", 1),
            "digits-networks/.*/card.json": ("card of a digits network", 2),
            r"clean/.*\.npz": ("answers", 1),
            r"adversarial/.*\.npz": ("attacked images", 1),
            r"rows/.*\.npz": ("row of the similarity", 2),
        },
        ("*.csv",),
    ),
    "prune sweep": Work(
        ("prune", "sweep", "--out", "OUT", *TINY, "--keeps", "0.5", "--seeds", "1", "--quiet"),
        {
            "digits-features/.*/checkpoints": ("checkpoint of a digits network", 1),
            "digits-features/.*/card.json": ("card of a digits network", 1),
            r"prune-moments/.*\.safetensors": ("moments", 1),
            r"image-statistics/.*\.npz": ("image statistics", 1),
            "prune-searches/unfinished/.*/checkpoints": ("checkpoint of a piece of a sweep", 2),
            r"prune-searches/../.*\.json": ("piece of a sweep", 2),
        },
        ("*.csv",),
    ),
    "proof search": Work(
        ("proof", "search", "--smallest", *SEEDS, "--out", "OUT", "--quiet"),
        {r"proof-search/../.*\.json": ("result of a proof", 2)},
        ("proof.json", "proof.md"),
    ),
}


def results(folder: Path, patterns: tuple[str, ...]) -> dict[Path, bytes]:
    """What came out."""
    found = {file.relative_to(folder): file.read_bytes() for pattern in patterns for file in folder.rglob(pattern)}
    assert found
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_a_cache_on_a_full_disk_is_named_and_later_the_result_is_that_of_ever(
    name: str, forks: Forks, tmp_path: Path
) -> None:
    """One run after another, each of which gets as far as one more kind of entry; then there is space."""
    work, cache, log = WORKS[name], tmp_path / "cache", tmp_path / "full.txt"

    def words(out: str) -> list[str]:
        return [word.replace("OUT", str(tmp_path / out)) for word in work.words]

    assert forks.run(*words("alone"), cache=tmp_path / "other").code == 0
    for pattern, (what, number) in work.writes.items():
        log.unlink(missing_ok=True)
        said = forks.run(*words("run"), cache=cache, hooks=[("no_space_for", pattern, number, log)])
        assert log.exists(), f"{pattern} is not written so often: {said}"
        assert said.failure.startswith(f"error: {log.read_text()}: no space left to write; free some space")
        assert not leftovers(cache)
        held("faults", f"a full disk at the write of a {what} to the cache", "exit 1; the line names the path")
    said = forks.run(*words("run"), cache=cache)
    assert said.code == 0, said.err
    assert results(tmp_path / "run", work.results) == results(tmp_path / "alone", work.results)
    assert not leftovers(tmp_path)
    held("faults", f"`vtk {name}` after its cache was on a full disk", "exit 0; the same result as ever")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB: room for a part of the digits."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_an_embedded_dataset_that_does_not_fit_leaves_nothing_and_is_made_when_it_does(
    small_disk: Path, forks: Forks
) -> None:
    said = forks.run("data", "make", "digits", "--quiet", cache=small_disk)
    assert said.failure.startswith(f"error: {small_disk}/data/digits-"), said
    assert "no space left to write" in said.failure
    assert [path for path in small_disk.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    made, usual = (
        forks.run("data", "make", "digits", "--json", "--quiet", cache=cache) for cache in (small_disk, None)
    )
    (one,), (other,) = made.object["datasets"], usual.object["datasets"]
    assert one["fingerprint"] == other["fingerprint"]
    assert not leftovers(small_disk)
    held(
        "faults", "an embedded dataset in a cache on a full tmpfs of 3 MB", "exit 1, nothing left; later the same bytes"
    )


def test_a_result_folder_on_a_full_disk_keeps_its_checkpoint_and_goes_on(tiny_disk: Path) -> None:
    """As proofs of `train`, `detect` and `segment` keep theirs."""
    folders = ResultFolders(tiny_disk / "proof")

    def through(size: int) -> list[dict[str, object]]:
        def compute(_piece: str, folder: Path) -> dict[str, object]:
            state = folder / "checkpoints" / "state"
            if not state.exists():
                with atomic_path(state) as temporary:
                    temporary.write_bytes(b"state")
            return {"value": "v" * size, "from": state.read_bytes().decode()}

        return folders.through(["piece"], key=str, compute=compute)

    with pytest.raises(JobError, match=f"{tiny_disk}/proof/piece/result.json: no space left to write"):
        through(300_000)
    assert (tiny_disk / "proof" / "piece" / "checkpoints" / "state").read_bytes() == b"state"
    assert not leftovers(tiny_disk)
    assert through(10) == through(10) == [{"value": "v" * 10, "from": "state"}]
    held("faults", "a full file system at the result of a proof", "the line names the path; later it goes on")
