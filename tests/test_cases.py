"""The tables of cases that held are those of the tests that ran, also of several workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cases import Held, held, table

ROOT = Path(__file__).parents[1]
PAGE = "<!-- cases faults -->\nold\n<!-- end -->\n<!-- cases hostile -->\nold\n<!-- end -->\n"
SUITE = """
import pytest
from tests.cases import held

@pytest.mark.parametrize("moment", range(4))
def test_a_case(moment):
    held("faults", "a kill", "exit -9")
"""


def test_a_kind_is_a_row_and_its_cases_are_counted() -> None:
    cases = [Held("faults", "b", "exit 1"), Held("faults", "a | z", "exit\n0", 5), Held("faults", "b", "exit 2")]
    assert table(cases).splitlines()[2:] == ["| a \\| z | 5 | exit 0 |", "| b | 2 | exit 1; or: exit 2 |"]


def test_where_nobody_listens_nothing_is_kept() -> None:
    held("faults", "a", "exit 0")


@pytest.mark.parametrize(("workers", "failing"), [(0, False), (2, False), (2, True)])
def test_the_table_is_written_where_no_test_failed(tmp_path: Path, workers: int, failing: bool) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_addoption, pytest_configure\n")
    (tmp_path / "test_suite.py").write_text(SUITE + "    assert moment != 2\n" * failing)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        str(workers),
        "--cases",
        page,
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == int(failing), done.stdout + done.stderr
    new = PAGE.replace("old", "| case | tried | what was seen |\n| --- | --: | --- |\n| a kill | 4 | exit -9 |", 1)
    assert page.read_text() == (PAGE if failing else new)
