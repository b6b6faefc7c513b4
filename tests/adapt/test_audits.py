from __future__ import annotations

import pytest
from scipy.stats import binomtest

from vtk_cli.adapt.audit import AuditedAccuracy, audited_accuracy, draw_audit, has_levelled_off, wilson_interval
from vtk_cli.adapt.ledger import OTHER, LabelRow
from vtk_cli.errors import UserError

POOL = tuple(f"{number:02d}" for number in range(30))


@pytest.mark.parametrize(("right", "judged"), [(0, 10), (10, 10), (37, 50), (1, 1), (499, 1000)])
def test_the_interval_is_that_of_wilson(right: int, judged: int) -> None:
    expected = binomtest(right, judged).proportion_ci(method="wilson")
    assert wilson_interval(right, judged) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_judged_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_an_audit_is_drawn_by_its_seed_whatever_order_the_pool_is_in() -> None:
    drawn = draw_audit(POOL, 6, 3)
    assert drawn == draw_audit(POOL[::-1], 6, 3)
    assert len(set(drawn)) == 6
    assert drawn != draw_audit(POOL, 6, 4)
    assert draw_audit(POOL, 0, 3) == ()
    with pytest.raises(UserError, match="--audit"):
        draw_audit(POOL, 29, 3)


def test_only_images_of_the_audit_with_a_class_are_judged() -> None:
    rows = [
        LabelRow("00", "cat", 0, "audit", ""),
        LabelRow("01", "dog", 0, "audit", ""),
        LabelRow("02", OTHER, 0, "audit", ""),
        LabelRow("09", "dog", 1, "human", ""),
    ]
    found = audited_accuracy(rows, POOL[:5], dict.fromkeys(POOL, "cat"))
    assert (found.right, found.judged, found.accuracy) == (1, 2, 0.5)


@pytest.mark.parametrize(
    ("right", "levelled"), [([50, 52, 49], True), ([50, 70, 72], False), ([20, 50, 52, 49], True), ([50, 52], False)]
)
def test_accuracies_within_the_interval_before_them_have_levelled_off(right: list[int], *, levelled: bool) -> None:
    audits = [AuditedAccuracy(one, 100, *wilson_interval(one, 100)) for one in right]
    assert has_levelled_off(audits) is levelled
