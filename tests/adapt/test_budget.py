from __future__ import annotations

import pytest

from vtk_cli.adapt.budget import parse_budget, plan_rounds, round_sizes, share_of
from vtk_cli.console import Console
from vtk_cli.errors import UserError


@pytest.mark.parametrize(
    ("pool", "one_percent"), [(2427, 25), (2817, 29), (55388, 554), (498, 5), (795, 8), (2500, 25)]
)
def test_one_percent_of_a_pool_is_rounded_up(pool: int, one_percent: int) -> None:
    assert share_of(1, pool) == one_percent


@pytest.mark.parametrize(
    ("text", "labels"), [("5%", 40), ("5 %", 40), ("2.5%", 20), ("5", 5), ("40", 40), ("100%", 800)]
)
def test_a_budget_is_images_or_a_share(text: str, labels: int) -> None:
    assert parse_budget(text, 800) == labels


@pytest.mark.parametrize("text", ["0", "0%", "801", "101%", "-3", "0.05", "five", "", "5%%"])
def test_a_budget_that_is_none_or_too_large_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--budget"):
        parse_budget(text, 800)


def test_what_rounds_leave_over_goes_to_the_last() -> None:
    assert round_sizes(40, 3) == (13, 13, 14)
    assert round_sizes(44, 5) == (8, 8, 8, 8, 12)


@pytest.mark.parametrize("total", range(1, 60))
def test_rounds_spend_the_budget_exactly(total: int) -> None:
    for rounds in range(1, total + 1):
        sizes = round_sizes(total, rounds)
        assert sum(sizes) == total
        assert len(sizes) == rounds
        assert min(sizes) >= 1


def test_five_means_five_images_and_says_so_where_they_are_fewer_than_rounds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert plan_rounds("5", 800, 8, 2, Console()) == (5, 5)
    said = capsys.readouterr().err
    assert "fewer than 8 rounds" in said
    assert "write 5%" in said


def test_few_labels_a_class_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    plan_rounds("29", 800, 1, 10, Console())
    assert "clue" in capsys.readouterr().err
    plan_rounds("30", 800, 1, 10, Console())
    assert not capsys.readouterr().err
