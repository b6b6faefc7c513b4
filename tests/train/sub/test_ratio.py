from __future__ import annotations

import pytest

from vtk_cli.errors import UserError
from vtk_cli.train.sub import SubRatio, kept_count, parse_ratio


@pytest.mark.parametrize(
    ("parts", "ratio", "kept"),
    [
        (196, 0.5, 98),
        (49, 0.5, 24),
        (49, 0.75, 12),
        (10, 0.9, 1),
        (20, 0.9, 2),
        (16, 0.0, 16),
        (4, 0.99, 1),
        (100, 0.29, 71),
    ],
)
def test_so_many_parts_are_kept(parts: int, ratio: float, kept: int) -> None:
    assert kept_count(parts, ratio) == kept


def test_a_ratio_grows_linearly_from_its_start_to_its_end() -> None:
    ratio = parse_ratio("0.25:0.75")
    assert [ratio.at(progress) for progress in (-1, 0, 0.5, 1, 2)] == [0.25, 0.25, 0.5, 0.75, 0.75]
    assert parse_ratio("0.5") == parse_ratio(0.5) == SubRatio(0.5, 0.5)


@pytest.mark.parametrize("text", ["1", "-0.1", "0.5:1", "nan"])
def test_a_ratio_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--sub-ratio: sub-ratio must be >= 0 and < 1"):
        parse_ratio(text)


@pytest.mark.parametrize("text", ["half", "0.5:", ":0.5", ""])
def test_what_is_no_ratio_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no ratio"):
        parse_ratio(text)
