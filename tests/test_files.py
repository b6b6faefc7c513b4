"""Files are whole or absent, whatever happens to their writer."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vtk_cli import files
from vtk_cli.errors import JobError, UserError

HOLD_LOCK = """
import sys, time
from pathlib import Path
from vtk_cli.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fail_in_the_middle() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_makes_the_folders_above_it_and_leaves_no_temporary(tmp_path: Path) -> None:
    files.write_text(tmp_path / "b" / "c" / "a.txt", "text")
    assert (tmp_path / "b" / "c" / "a.txt").read_text() == "text"
    assert len(list((tmp_path / "b" / "c").iterdir())) == 1


def test_the_temporary_lies_beside_the_file_and_has_its_suffix(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / "clip.mp4") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mp4"
        assert temporary.name.startswith(files.TEMPORARY_PREFIX)


def test_a_written_file_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_writer_killed_in_the_middle_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    child = os.fork()
    if child == 0:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_text() == "old"


def test_what_a_killed_writer_left_is_removed_by_the_next_process_that_writes_there(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with files.atomic_path(tmp_path / "a.json"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(files.TEMPORARY_PREFIX)
    at_work = left.with_name(left.name.replace(f"~{child}~", f"~{os.getppid()}~"))
    at_work.touch()
    files.write_text(tmp_path / "b.txt", "x")
    assert {*tmp_path.iterdir()} == {at_work, tmp_path / "b.txt"}


def test_a_reader_never_sees_a_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    contents = {letter * 200_000 for letter in "ab"}
    files.write_text(path, "a" * 200_000)
    done = threading.Event()

    def write() -> None:
        for _ in range(20):
            for content in contents:
                files.write_text(path, content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_text())
    writer.join()
    assert seen <= contents


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1, "a": [1.5, None]})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"b": float("nan")})
    assert path.read_text() == '{\n  "b": 1,\n  "a": [\n    1.5,\n    null\n  ]\n}\n'


def test_a_full_disk_is_a_failed_job_and_keeps_the_old_file(tiny_disk: Path) -> None:
    path = tiny_disk / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(JobError, match="no space left"):
        files.write_text(path, "n" * 1_000_000)
    assert path.read_text() == "old"
    assert [entry.name for entry in tiny_disk.iterdir()] == ["a.txt"]


def test_a_file_size_limit_is_a_failed_job_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(JobError, match="no space left"):
            files.write_text(path, "n" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_read_only_folder_is_the_users_mistake(read_only_folder: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        files.write_text(read_only_folder / "a.txt", "text")
    with pytest.raises(UserError, match="cannot be written"):
        files.write_text(read_only_folder / "b" / "a.txt", "text")
    with pytest.raises(UserError, match="cannot be written"), files.lock(read_only_folder / "lock"):
        pass


def test_other_errors_of_the_system_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.disk_errors(tmp_path):
        (tmp_path / "absent").read_text()


def test_the_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_content_key_depends_on_the_content_and_not_on_the_order_of_keys() -> None:
    key = files.content_key({"a": 1, "b": [1, 2]})
    assert key == files.content_key({"b": [1, 2], "a": 1})
    assert key == hashlib.sha256(b'{"a":1,"b":[1,2]}').hexdigest()[:20]
    assert key != files.content_key({"a": 1, "b": [2, 1]})


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path))
    assert files.cache_folder() == tmp_path
    monkeypatch.delenv(files.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_folder() == tmp_path / "xdg" / "vtk"


def test_a_lock_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD_LOCK, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=r"it is busy; wait for it to end"),
            files.lock(path, wait=False, busy="it is busy"),
        ):
            pass
        holder.kill()
        holder.wait()
        with files.lock(path, wait=False):
            pass


def test_a_lock_is_free_after_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.lock(tmp_path / "lock"):
        raise ZeroDivisionError
    with files.lock(tmp_path / "lock", wait=False):
        pass


def test_a_path_that_cannot_be_is_the_users_mistake(tmp_path: Path) -> None:
    for folder in (tmp_path / ("a" * 300), Path("/proc/none/of/ours")):
        with pytest.raises(UserError, match="can be"):
            files.write_text(folder / "a.txt", "text")
        with pytest.raises(UserError, match="can be"), files.lock(folder / "lock"):
            pass


def test_a_folder_is_refused_before_the_work_and_nothing_is_made(tmp_path: Path, read_only_folder: Path) -> None:
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    for place in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(UserError, match="file: is a file, not a folder"):
            files.require_folder(place)
    with pytest.raises(UserError, match="read-only: cannot be written"):
        files.require_folder(read_only_folder / "a" / "b")
    files.require_folder(tmp_path)
    files.require_folder(tmp_path / "a" / "b")
    files.require_folder(Path("a"))
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_sealed_is_read_as_it_was_written_and_nothing_else_is(tmp_path: Path) -> None:
    path, value = tmp_path / "sealed.json", {"b": (1.5, None), "a": {2: "x", 10: "y"}}
    files.write_sealed(path, value)
    assert files.read_sealed(path) == {"b": [1.5, None], "a": {"2": "x", "10": "y"}}
    path.write_text(path.read_text().replace("1.5", "1.6"))
    assert files.read_sealed(path) is None
    for other in ("[1]", "{}", '{"b": 1}', '{"b": NaN, "checksum": ""}', "{"):
        path.write_text(other)
        assert files.read_sealed(path) is None
    assert files.read_sealed(tmp_path / "none.json") is None
    with pytest.raises(ValueError, match="checksum"):
        files.write_sealed(path, {"checksum": 1})
