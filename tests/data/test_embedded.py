from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vtk_cli.console import Console
from vtk_cli.data import embedded
from vtk_cli.data.catalog import ENTRIES, MANIFEST, cached, find_entry, folder_of
from vtk_cli.data.embedded import BUILDERS, export_embedded, make_embedded, open_embedded, wrong_files, wrong_sizes
from vtk_cli.errors import JobError, UserError
from vtk_cli.files import CACHE_VARIABLE, sha256_file

COUNTS = {
    "digits": {},
    "digits-coco": {"train": 3, "val": 2},
    "moving-digits": {"train": 4, "val": 2, "val_iid": 2},
    "digits-m": {},
}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_every_entry_of_the_catalog_can_be_built_and_nothing_else():
    assert set(BUILDERS) == {entry.name for entry in ENTRIES} == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_two_builds_in_two_cache_folders_are_the_same_byte_for_byte(name, tmp_path, monkeypatch):
    manifests, opened = [], []
    for folder in ("one", "two"):
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / folder))
        opened.append(open_embedded(name, **COUNTS[name]))
        manifests.append((opened[-1].folder / MANIFEST).read_bytes())
    assert opened[0].folder != opened[1].folder
    assert manifests[0] == manifests[1]
    assert opened[0].fingerprint == opened[1].fingerprint


@pytest.mark.parametrize("name", COUNTS)
def test_the_manifest_lists_every_file_with_its_size_and_checksum(name, cache):
    folder = open_embedded(name, **COUNTS[name]).folder
    listed = json.loads((folder / MANIFEST).read_text())["files"]
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(listed) == set(there) - {MANIFEST}
    for path, (size, digest) in listed.items():
        assert (size, digest) == (there[path].stat().st_size, sha256_file(there[path]))


def test_a_dataset_is_built_once(cache, monkeypatch):
    first = open_embedded("digits-coco", **COUNTS["digits-coco"])
    monkeypatch.setitem(BUILDERS, "digits-coco", lambda *_, **__: pytest.fail("built again"))
    assert open_embedded("digits-coco", **COUNTS["digits-coco"]) == first
    assert make_embedded("digits-coco", **COUNTS["digits-coco"]) == first


@pytest.mark.parametrize("harm", ["truncated", "removed", "no manifest", "torn manifest"])
def test_a_torn_dataset_is_made_again_when_opened(harm, cache, capsys):
    whole = open_embedded("digits-coco", **COUNTS["digits-coco"])
    image = whole.folder / "train" / "000002.png"
    before = image.read_bytes()
    if harm == "truncated":
        image.write_bytes(before[:-10])
    elif harm == "removed":
        image.unlink()
    elif harm == "no manifest":
        (whole.folder / MANIFEST).unlink()
    else:
        (whole.folder / MANIFEST).write_text((whole.folder / MANIFEST).read_text()[:200])
    assert wrong_sizes(whole.folder)
    assert open_embedded("digits-coco", Console(), **COUNTS["digits-coco"]) == whole
    assert image.read_bytes() == before
    assert "missing or torn" in capsys.readouterr().err
    assert not wrong_files(whole.folder)


def test_make_finds_a_changed_file_of_the_same_size(cache):
    whole = open_embedded("digits-coco", **COUNTS["digits-coco"])
    image = whole.folder / "val" / "000001.png"
    before = image.read_bytes()
    image.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert wrong_sizes(whole.folder) == []
    assert wrong_files(whole.folder) == ["val/000001.png"]
    assert make_embedded("digits-coco", **COUNTS["digits-coco"]) == whole
    assert image.read_bytes() == before


def test_a_build_that_fails_leaves_nothing_and_the_next_one_succeeds(cache, monkeypatch):
    builder = BUILDERS["digits-coco"]

    def torn(folder: Path, **counts: int) -> None:
        (folder / "half.png").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(BUILDERS, "digits-coco", torn)
    with pytest.raises(JobError, match="no space left"):
        open_embedded("digits-coco", **COUNTS["digits-coco"])
    monkeypatch.setitem(BUILDERS, "digits-coco", builder)
    whole = open_embedded("digits-coco", **COUNTS["digits-coco"])
    assert not list(whole.folder.rglob("half.png"))
    assert sorted(path.name for path in (cache / "data").iterdir()) == [whole.folder.name, f"{whole.folder.name}.lock"]


def test_a_full_disk_while_clips_are_written_is_one_line(tmp_path):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "from vtk_cli.data.embedded import open_embedded\n"
        "from vtk_cli.errors import JobError\n"
        "try: open_embedded('moving-digits', train=4, val=1, val_iid=1)\n"
        "except JobError as error: print(error)\n"
    )
    environment = os.environ | {CACHE_VARIABLE: str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "no space left" in done.stdout
    assert not list((tmp_path / "cache" / "data").glob("moving-digits-*/"))


def test_processes_that_ask_at_once_build_once_and_all_get_it_whole(tmp_path):
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from vtk_cli.data import embedded\n"
        "builder = embedded.BUILDERS['digits-coco']\n"
        "def counted(folder, **counts):\n"
        "    (Path(sys.argv[1]) / f'built-{os.getpid()}').touch()\n"
        "    builder(folder, **counts)\n"
        "embedded.BUILDERS['digits-coco'] = counted\n"
        "(Path(sys.argv[1]) / f'ready-{os.getpid()}').touch()\n"
        "while len(list(Path(sys.argv[1]).glob('ready-*'))) < 3: time.sleep(0.01)\n"
        "opened = embedded.open_embedded('digits-coco', train=30, val=5)\n"
        "assert embedded.wrong_files(opened.folder) == []\n"
        "print(opened.fingerprint)\n"
    )
    marks = tmp_path / "marks"
    marks.mkdir()
    environment = os.environ | {CACHE_VARIABLE: str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(marks)]
    asking = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=60)[0] for process in asking]
    assert [process.returncode for process in asking] == [0, 0, 0]
    assert len(set(answers)) == 1
    assert len(list(marks.glob("built-*"))) == 1


def test_counts_and_the_version_are_part_of_where_a_dataset_lies(cache, monkeypatch):
    entry = find_entry("digits-coco")
    assert folder_of(entry) != folder_of(entry, {"train": 3, "val": 2})
    raised = embedded.Entry(**{**vars(entry), "version": entry.version + 1})
    assert folder_of(raised) != folder_of(entry)
    assert folder_of(entry).is_relative_to(cache)


def test_the_catalog_says_what_is_cached(cache):
    entry = find_entry("digits")
    assert cached(entry).size is None
    folder = open_embedded("digits").folder
    pngs = sum(path.stat().st_size for path in folder.rglob("*.png"))
    assert cached(entry).size == pngs
    assert cached(entry).folder == folder


def test_an_export_is_a_whole_copy_and_is_made_once(cache, tmp_path):
    exported = export_embedded("digits-coco", tmp_path / "out", **COUNTS["digits-coco"])
    assert exported.folder == tmp_path / "out" / "digits-coco"
    assert wrong_files(exported.folder) == []
    assert export_embedded("digits-coco", tmp_path / "out", **COUNTS["digits-coco"]) == exported
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["digits-coco"]


def test_an_export_never_overwrites_something_else(cache, tmp_path):
    (tmp_path / "digits-coco").mkdir()
    (tmp_path / "digits-coco" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not this dataset"):
        export_embedded("digits-coco", tmp_path, **COUNTS["digits-coco"])
    assert (tmp_path / "digits-coco" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("name", "counts", "message"),
    [
        ("digits-koko", {}, "did you mean digits-coco"),
        ("digits-coco", {"test": 3}, "there are train, val"),
        ("digits", {"train": 3}, "there are none"),
        ("digits-coco", {"train": 0}, "at least 1"),
    ],
)
def test_a_wrong_name_or_count_says_what_is_right(name, counts, message, cache):
    with pytest.raises(UserError, match=message):
        open_embedded(name, **counts)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_a_usage_error(cache, monkeypatch):
    def refused(folder: Path, **counts: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setitem(BUILDERS, "digits", refused)
    with pytest.raises(UserError, match="cannot be written"):
        open_embedded("digits")


def test_a_whole_dataset_in_a_cache_that_takes_no_lock_is_opened(cache, monkeypatch):
    whole = open_embedded("digits-coco", **COUNTS["digits-coco"])
    monkeypatch.setattr(embedded, "lock", lambda *_, **__: pytest.fail("a shared cache may be read-only"))
    assert open_embedded("digits-coco", **COUNTS["digits-coco"]) == whole


def test_listing_the_catalog_imports_nothing_heavy():
    code = (
        "import sys, vtk_cli.data.catalog; print([m for m in ('torch', 'sklearn', 'numpy', 'av') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
