from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtk_cli.errors import UserError
from vtk_cli.prune.keeping import kept_of, parse_keep


@pytest.mark.parametrize(
    ("n", "keep", "kept"), [(10, "0.9", 9), (5, "0.1", 1), (10, "1", 10), (15, "0.1", 2), (3, "0.001", 1)]
)
def test_kept_is_rounded_exactly_with_halves_up_and_at_least_one(n: int, keep: str, kept: int) -> None:
    assert kept_of(n, parse_keep(keep)) == kept


@given(st.integers(1, 10**9), st.integers(1, 1000))
def test_kept_is_within_half_a_weight_of_the_fraction(n: int, thousandths: int) -> None:
    keep = Fraction(thousandths, 1000)
    kept = kept_of(n, keep)
    assert 1 <= kept <= n
    assert abs(kept - keep * n) <= Fraction(1, 2) or kept == 1


def test_a_fraction_is_read_as_it_is_written() -> None:
    assert parse_keep(0.1) == parse_keep("0.1") == parse_keep(Fraction(1, 10)) == Fraction(1, 10)


def test_percent_is_refused_with_the_fraction_that_was_meant() -> None:
    with pytest.raises(UserError, match=r"did you mean 0\.10\?"):
        parse_keep("10")


@pytest.mark.parametrize(
    "value", ["0", "-0.5", "1000", "1e99999999", "1e-99999999", "1E-1_0000_0000", "nan", "inf", "a tenth", "1/0"]
)
def test_what_is_no_fraction_of_the_weights_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="--keep"):
        parse_keep(value)
