"""What processes complain of is said by one of them."""

from __future__ import annotations

import pytest

from tests.command_line import Said
from tests.shared_runs import run_together

pytestmark = pytest.mark.slow  # processes of their own

WAYS = {
    "bad option": ["fail", "--bogus"],
    "all": ["fail", "all", "--device", "cpu"],
    "first": ["fail", "first", "--device", "cpu"],
    "second": ["fail", "second", "--device", "cpu"],
    "killed": ["fail", "killed", "--device", "cpu"],
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Said]]:
    """By the way of failing: what both processes said."""
    folder = tmp_path_factory.mktemp("voices")
    found = run_together(
        [*WAYS.values()],
        folder=folder,
        cache=folder,
        preload="vtk_cli.engine.processes.distributed",
        patches="tests.engine.voice_runs",
    )
    return dict(zip(WAYS, found, strict=True))


@pytest.mark.parametrize("way", ["bad option", "all", "first"])
def test_a_mistake_that_all_find_is_said_by_the_first_alone(said: dict[str, list[Said]], way: str) -> None:
    first, second = said[way]
    assert first.err.count("\n") == 1
    assert first.complaint.startswith("error: No such option" if way == "bad option" else "error: there: no")
    assert (second.code, second.out, second.err) == (2, "", "")


def test_an_error_of_one_process_is_said_by_it_with_its_number(said: dict[str, list[Said]]) -> None:
    first, second = said["second"]
    assert second.complaint + "\n" == second.err == "error: process 1 of 2: there: no\n"
    assert (first.code, first.err) == (2, "")  # launchers report the code of whoever ends first


def test_a_process_that_ended_without_a_word_is_told_of(said: dict[str, list[Said]]) -> None:
    first, second = said["killed"]
    assert "another process of this training has ended without a word" in first.failure
    assert first.err.count("\n") == 1
    assert (second.code, second.err) == (-9, "")
