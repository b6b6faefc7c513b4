from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtk_cli.errors import UserError
from vtk_cli.segment.labels.budget import COCO, Contents, Timings, costs, fraction_of, hours_of, plans

DEFAULT = Timings()


def test_coco_costs_what_its_statistics_say_to_a_tenth_of_a_second() -> None:
    found = costs(COCO, DEFAULT)
    assert (found.tags, found.points, found.boxes, found.masks) == pytest.approx((80.0, 87.9, 127.4, 646.2), abs=0.05)


def test_masks_on_5_percent_of_coco_take_159_days_and_on_all_885() -> None:
    assert round(hours_of(0.05, COCO, DEFAULT) / 24) == 159
    assert round(hours_of(1, COCO, DEFAULT) / 24) == 885


def test_all_masks_cost_what_masks_cost_and_none_what_clicks_cost() -> None:
    found = costs(COCO, DEFAULT)
    assert hours_of(1, COCO, DEFAULT) == pytest.approx(COCO.images * found.masks / 3600)
    assert hours_of(0, COCO, DEFAULT) == pytest.approx(COCO.images * found.points / 3600)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_masks_cost_more_and_the_share_comes_back_from_the_hours(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert hours_of(low, COCO, DEFAULT) <= hours_of(high, COCO, DEFAULT)
    assert fraction_of(hours_of(one, COCO, DEFAULT), COCO, DEFAULT) == pytest.approx(one, abs=1e-9)


def test_too_few_hours_for_all_clicks_and_useless_clicks_are_refused() -> None:
    with pytest.raises(UserError, match="do not suffice for a click on every object, which takes 2888"):
        fraction_of(100, COCO, DEFAULT)
    with pytest.raises(UserError, match="nothing to plan"):
        fraction_of(100, COCO, Timings(mask=0.1))
    assert fraction_of(1e9, COCO, DEFAULT) == 1


def test_a_plan_never_takes_more_than_the_hours_nor_leaves_an_affordable_image() -> None:
    contents = Contents(1000, 5.0, 2.0, 10)
    of_image = costs(contents, DEFAULT)
    for hours in (0.5, 5, 20, 60, 500):
        found = plans(hours, contents, DEFAULT)
        for plan in found:
            assert plan.masks + plan.points + plan.unlabelled == 1000
            assert plan.hours <= hours + 1e-9
            assert plan.hours == pytest.approx((plan.masks * of_image.masks + plan.points * of_image.points) / 3600)
            assert plan.unlabelled == 0 or (hours - plan.hours) * 3600 < of_image.points
        assert [plan.masks for plan in found] == sorted({plan.masks for plan in found})
        most = found[-1]
        assert most.masks == 1000 or (hours * 3600 - most.masks * of_image.masks) < of_image.masks


def test_clicks_that_cost_nothing_are_on_every_image() -> None:
    contents, free = Contents(10, 2.0, 1.0, 1), Timings(tag=0, first_click=0, next_click=0)
    assert [plan.unlabelled for plan in plans(0.01, contents, free)] == [0]


@pytest.mark.parametrize("hours", [0, -1, float("inf"), float("nan")])
def test_no_hours_are_no_plan(hours: float) -> None:
    with pytest.raises(UserError, match="out of range"):
        plans(hours, COCO, DEFAULT)


def test_more_classes_than_objects_in_an_image_are_refused() -> None:
    with pytest.raises(UserError, match="no more classes an image than objects"):
        Contents(10, 1.0, 2.0, 5)
