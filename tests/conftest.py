"""One thread a process, the same random numbers in every order of the tests, and disks on which writing fails."""

from __future__ import annotations

import os

# Before torch is imported, here and in the processes that tests start: the networks of the tests are too small for
# threads, and on a busy machine threads that wait for one another take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases import CaseTables


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "write the tables of cases that held into FILE: `pytest tests/faults tests/hostile --cases README.md`"
    parser.addoption("--cases", type=Path, metavar="FILE", help=about)


def pytest_configure(config: pytest.Config) -> None:
    if (page := config.getoption("--cases")) is not None:
        config.pluginmanager.register(CaseTables(page.absolute(), is_worker=hasattr(config, "workerinput")))


def _mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    return (
        shutil.which("mount") is not None and not subprocess.run(command, check=False, capture_output=True).returncode
    )


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """A test draws what it draws alone, whichever tests this process ran before."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    if not _mount(tmp_path, "size=256k"):
        pytest.skip("no right to mount a file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be read but not written, also by root."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    if not _mount(folder, "ro"):
        pytest.skip("root writes everywhere and may not mount here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
